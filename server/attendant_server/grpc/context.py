"""The type of a call's context, for services and interceptors."""

from typing import Any

import grpc

Context = grpc.aio.ServicerContext[Any, Any]

"""gRPC reflection, under its name v1 and under its older name v1alpha.

grpcio-reflection knows v1alpha only. The messages of v1 have the same fields with the same numbers,
so one servicer answers both.
"""

from collections.abc import Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


def _renamed_to_v1(alpha: Any) -> FileDescriptor:
    message, renamed = descriptor_pb2.FileDescriptorProto(), descriptor_pb2.FileDescriptorProto()
    alpha.CopyToProto(message)
    text_format.Parse(text_format.MessageToString(message).replace("v1alpha", "v1"), renamed)
    # Not in the default pool: a later grpcio-reflection may register v1 there.
    return DescriptorPool().AddSerializedFile(renamed.SerializeToString())


V1ALPHA_FILE = reflection_pb2.DESCRIPTOR
"""The file that defines v1alpha."""
V1_FILE = _renamed_to_v1(V1ALPHA_FILE)
"""The file that defines v1."""


def add_reflection(files: Iterable[Any], server: grpc.aio.Server) -> None:
    """Add reflection for the services of these file descriptors to a server."""
    pool, services = DescriptorPool(), []
    for file in files:
        _add_with_dependencies(pool, file)
        services += [service.full_name for service in file.services_by_name.values()]
    method = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(services, pool).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    methods = {"ServerReflectionInfo": method}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, methods) for name in NAMES]
    )


def _add_with_dependencies(pool: DescriptorPool, file: Any) -> None:
    for dependency in file.dependencies:
        _add_with_dependencies(pool, dependency)
    pool.AddSerializedFile(file.serialized_pb)

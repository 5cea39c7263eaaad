"""The operation of a call: the method of attendant.v1 that does its work, in any protocol."""

from attendant_server import records
from attendant_server.errors import PermissionDenied


def begin_operation(name: str) -> None:
    """Note the operation in the record of the running task's call.

    Raises PermissionDenied unless the caller may call the method of attendant.v1 of this name.
    """
    record = records.current()
    if not record.caller.may_call(name):
        raise PermissionDenied(f"method: this caller may not call {name}")
    record.operation = name

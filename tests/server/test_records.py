from attendant_server.callers import Identity
from attendant_server.engine.calls import Caller, CallTimings
from attendant_server.records import CallRecord, Method, Phase

METHOD = Method.of("attendant.v1.TranslationService", "Translate", False, False)


def test_a_running_call_has_no_phase_that_is_still_open():
    record = CallRecord(
        METHOD,
        started=1.0,
        tokenization_started=2.0,
        tokenization_ended=4.0,
        engine=CallTimings(submitted=5.0, started=8.0),
    )
    ended = (Phase("receive", 1.0, 2.0), Phase("tokenize", 2.0, 4.0), Phase("queue", 5.0, 8.0))
    assert record.phases() == ended
    record.ended = 10.0
    assert record.phases() == (*ended, Phase("encode", 8.0, 10.0))


def test_bulk_calls_of_a_connection_are_those_of_another_caller_with_less_weight():
    interactive = CallRecord(METHOD, peer="192.0.2.7:40312").engine_caller
    bulk = CallRecord(METHOD, peer="192.0.2.7:40312", is_bulk=True).engine_caller
    assert interactive == Caller("192.0.2.7:40312")
    assert bulk == Caller("192.0.2.7:40312", is_bulk=True, weight=0.25)


def test_all_connections_with_the_same_credentials_are_one_caller():
    first, second = (
        CallRecord(METHOD, peer=f"192.0.2.7:{port}", caller=Identity("key:search"))
        for port in (40312, 40313)
    )
    assert first.engine_caller == second.engine_caller == Caller("key:search")


def test_weight_and_class_of_credentials_reach_the_engine():
    identity = Identity("key:batch", weight=2.0, is_bulk=True)
    caller = CallRecord(METHOD, peer="192.0.2.7:40312", caller=identity).engine_caller
    assert caller == Caller("key:batch", is_bulk=True, weight=0.5)

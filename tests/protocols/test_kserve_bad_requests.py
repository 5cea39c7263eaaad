"""Bad requests of KServe's protocol: the status, and the field with its limit in the message."""

import grpc
import pytest
from attendant.v1 import translation_pb2
from attendant_server.errors import InvalidRequest
from attendant_server.grpc.kserve.parameters import set_parameters
from attendant_server.grpc.kserve.tensors import read_inputs
from attendant_vendored.inference import grpc_service_pb2 as messages
from hypothesis import given
from hypothesis import strategies as st

from tests.support.application import request_limits
from tests.support.kserve import infer_request, raw_texts
from tests.support.serving import failure_of

INVALID, UNSUPPORTED = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNIMPLEMENTED
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def changed(model="tiny-en-de", texts=("The dog.", "A cat."), **options):
    """A decorator that makes a row of a function which spoils a good request."""

    def decorate(spoil):
        request = infer_request(model, {"TEXT": texts}, **options)
        spoil(request)
        return pytest.param(request, id=spoil.__name__)

    return decorate


@changed()
def wrong_datatype(request):
    request.inputs[0].datatype = "FP32"


@changed()
def wrong_rank(request):
    request.inputs[0].shape[:] = [2, 1, 1]


@changed()
def two_columns(request):
    request.inputs[0].shape[:] = [1, 2]


@changed()
def negative_shape(request):
    request.inputs[0].shape[:] = [-1]


@changed()
def no_texts(request):
    request.inputs[0].shape[:] = [0]
    request.raw_input_contents[:] = [b""]


@changed()
def too_many_texts(request):
    request.inputs[0].shape[:] = [257]


@changed()
def absurd_shape(request):
    request.inputs[0].shape[:] = [2**62]


@changed()
def larger_shape_than_raw_contents(request):
    request.inputs[0].shape[:] = [3]


@changed()
def smaller_shape_than_raw_contents(request):
    request.inputs[0].shape[:] = [1]


@changed()
def raw_contents_that_end_in_a_text(request):
    request.raw_input_contents[0] = request.raw_input_contents[0][:-1]


@changed()
def raw_contents_that_end_in_a_length(request):
    request.raw_input_contents[0] += b"\1\0"


@changed()
def both_raw_and_typed_contents(request):
    request.inputs[0].contents.bytes_contents.append(b"A")


@changed(is_raw=False)
def missing_contents(request):
    request.inputs[0].ClearField("contents")


@changed(is_raw=False)
def contents_of_another_type(request):
    request.inputs[0].contents.int_contents.append(1)


@changed(is_raw=False)
def larger_shape_than_contents(request):
    request.inputs[0].shape[:] = [3]


@changed()
def too_few_raw_contents(request):
    request.inputs.add(name="QUERY", datatype="BYTES", shape=[1])


@changed()
def the_same_input_twice(request):
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


@changed()
def many_inputs(request):
    for _ in range(100_000):
        request.inputs.add()


@changed()
def many_outputs(request):
    for _ in range(100_000):
        request.outputs.add(name="TEXT")


@changed()
def unknown_input(request):
    request.inputs[0].name = "INPUT__0"


@changed()
def no_inputs(request):
    del request.inputs[:], request.raw_input_contents[:]


@changed(model="tiny-bert")
def unknown_output(request):
    request.outputs.add(name="EMBEDDING")
    request.outputs.add(name="OUTPUT__0")


@changed(model="tiny-classifier")
def outputs_of_two_tasks(request):
    request.outputs.add(name="EMBEDDING")
    request.outputs.add(name="LABEL")


@changed(model="tiny-bert")
def scale_of_vectors_without_scales(request):
    request.outputs.add(name="SCALE")


@changed()
def parameter_of_an_input(request):
    request.inputs[0].parameters["binary_data_size"].int64_param = 4


@changed()
def parameter_of_an_output(request):
    request.outputs.add(name="TEXT").parameters["binary_data"].bool_param = True


@changed()
def text_that_is_not_utf_8(request):
    request.raw_input_contents[0] = raw_texts(["A"]) + b"\2\0\0\0\xff\xfe"


@changed(texts=("The dog.", ""), model="tiny-bert")
def empty_text(request):
    pass


@changed(texts=("The dog.",), return_tokens=True)
def option_without_an_output(request):
    pass


@changed(beam_sise=4)
def unknown_parameter(request):
    pass


@changed(**{"a\nb": 4})
def unknown_parameter_with_a_strange_name(request):
    pass


@changed(stream=True)
def streaming_outside_of_a_stream(request):
    pass


@changed(beam_size="four")
def text_for_a_number(request):
    pass


@changed(beam_size=2.5)
def fraction_for_a_whole_number(request):
    pass


@changed(beam_size=True)
def bool_for_a_number(request):
    pass


@changed(beam_size=-1)
def negative_number(request):
    pass


@changed(beam_size=9)
def number_above_the_limit(request):
    pass


@changed(temperature=-1.0)
def option_of_sampling_below_its_limit(request):
    pass


@changed(sampling="[]")
def list_for_a_message(request):
    pass


@changed(**{f"p{i}": 1 for i in range(257)})
def too_many_parameters(request):
    pass


@changed(truncation="RIGHT")
def unknown_value_of_an_enum(request):
    pass


@changed(repetition_guard=1)
def number_for_a_bool(request):
    pass


@changed(target_language=5)
def number_for_a_text(request):
    pass


@changed(glossary_entries="car=Wagen")
def list_that_is_no_json(request):
    pass


@changed(glossary_entries="[" * 100_000)
def json_that_is_too_deep(request):
    pass


@changed()
def parameter_without_a_value(request):
    request.parameters["beam_size"].SetInParent()


@changed(timeout="5")
def timeout_that_is_no_number(request):
    pass


@changed()
def model_without_a_name(request):
    request.model_name = ""


INVALID_REQUESTS = [
    (wrong_datatype, "inputs[0].datatype: must be BYTES"),
    (wrong_rank, "inputs[0].shape: must be [n] or [n, 1], with n texts"),
    (two_columns, "inputs[0].shape: must be [n] or [n, 1], with n texts"),
    (negative_shape, "inputs[0].shape: must be [n] or [n, 1], with n texts"),
    (no_texts, "inputs[0].shape: at least 1, got 0"),
    (too_many_texts, "inputs[0].shape: at most 256, got 257"),
    (absurd_shape, f"inputs[0].shape: at most 256, got {2**62}"),
    (larger_shape_than_raw_contents, "raw_input_contents[0]: ends within the 3 texts"),
    (smaller_shape_than_raw_contents, "raw_input_contents[0]: has more than the 1 texts"),
    (raw_contents_that_end_in_a_text, "raw_input_contents[0]: ends within the 2 texts"),
    (raw_contents_that_end_in_a_length, "raw_input_contents[0]: has more than the 2 texts"),
    (both_raw_and_typed_contents, "inputs[0].contents: must be empty with raw_input_contents"),
    (missing_contents, "inputs[0].contents: must have 2 bytes_contents by the shape, got 0"),
    (contents_of_another_type, "inputs[0].contents: must have bytes_contents only"),
    (larger_shape_than_contents, "inputs[0].contents: must have 3 bytes_contents by the shape"),
    (too_few_raw_contents, "raw_input_contents: must have one entry for each of 2 inputs, got 1"),
    (the_same_input_twice, "inputs[1].name: is the name of an earlier input"),
    (many_inputs, "inputs: at most 16, got 100001"),
    (many_outputs, "outputs: at most 16, got 100000"),
    (unknown_input, "inputs: must be TEXT"),
    (no_inputs, "inputs: must be TEXT"),
    (unknown_output, "outputs[1].name: must be among EMBEDDING, SCALE"),
    (outputs_of_two_tasks, "outputs: must be among LABEL, SCORE or EMBEDDING, SCALE"),
    (scale_of_vectors_without_scales, "outputs: SCALE is not among the outputs of a request with"),
    (parameter_of_an_input, "inputs[0].parameters: must be empty"),
    (parameter_of_an_output, "outputs[0].parameters: must be empty"),
    (text_that_is_not_utf_8, "TEXT[1]: is not UTF-8"),
    (empty_text, "TEXT[1]: is empty"),
    (option_without_an_output, "return_tokens: no such parameter; there are allow_unknown, "),
    (unknown_parameter, "beam_sise: no such parameter; there are allow_unknown, beam_size, "),
    (unknown_parameter_with_a_strange_name, "parameters: no such parameter; there are "),
    (streaming_outside_of_a_stream, "stream: no such parameter; there are "),
    (text_for_a_number, "beam_size: must be a whole number"),
    (fraction_for_a_whole_number, "beam_size: must be a whole number"),
    (bool_for_a_number, "beam_size: must be a whole number"),
    (negative_number, "beam_size: is out of range"),
    (number_above_the_limit, "beam_size: must be between 1 and 8, got 9"),
    (option_of_sampling_below_its_limit, "temperature: must be more than 0 and at most 100"),
    (list_for_a_message, "sampling: must be a string with JSON for the field "),
    (too_many_parameters, "parameters: at most 256 parameters, got 257"),
    (unknown_value_of_an_enum, "truncation: must be one of TRUNCATION_UNSPECIFIED, "),
    (number_for_a_bool, "repetition_guard: must be true or false"),
    (number_for_a_text, "target_language: must be a string"),
    (list_that_is_no_json, "glossary_entries: must be a string with JSON for the field "),
    (json_that_is_too_deep, "glossary_entries: must be a string with JSON for the field "),
    (parameter_without_a_value, "beam_size: has no value"),
    (timeout_that_is_no_number, "timeout: must be a whole number of microseconds, at least 0"),
    (model_without_a_name, "model_name: must name a model"),
]


def rows(table):
    """The rows of a table of parameters and expected messages."""
    return [pytest.param(*row.values, message, id=row.id) for row, message in table]


@pytest.mark.parametrize(("request_", "message"), rows(INVALID_REQUESTS))
def test_a_bad_request_is_refused_with_the_name_of_what_is_bad(kserve, request_, message):
    failure = failure_of(kserve.ModelInfer, request_)
    assert failure.code() is INVALID
    assert failure.details().startswith(message)


@pytest.mark.parametrize(("request_", "message"), rows(INVALID_REQUESTS))
def test_a_bad_request_in_a_stream_leaves_the_stream_open(kserve, request_, message):
    if message.startswith("stream:"):
        pytest.skip("streams have this parameter")
    good = infer_request("tiny-en-de", {"TEXT": ["A"]})
    bad, answer = kserve.ModelStreamInfer(iter([request_, good]))
    assert bad.error_message.startswith(message)
    assert bad.infer_response.id == "42"
    assert bad.infer_response.parameters["triton_final_response"].bool_param
    assert not answer.error_message
    assert answer.infer_response.outputs


@changed()
def input_in_shared_memory(request):
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    del request.raw_input_contents[:]


@changed()
def output_in_shared_memory(request):
    request.outputs.add(name="TEXT").parameters["shared_memory_region"].string_param = "region"


@changed(model="tiny-classifier")
def classes_of_an_output(request):
    request.outputs.add(name="SCORE").parameters["classification"].int64_param = 2


@changed(sequence_id=5, sequence_start=True, sequence_end=False)
def sequence(request):
    pass


@changed(priority=1)
def priority(request):
    pass


@pytest.mark.parametrize(
    ("request_", "message"),
    rows(
        [
            (input_in_shared_memory, "inputs[0].parameters: shared memory is not supported"),
            (output_in_shared_memory, "outputs[0].parameters: shared memory is not supported"),
            (classes_of_an_output, "outputs[0].parameters: classification is not supported"),
            (sequence, "sequence_id: models keep nothing from one request to the next"),
            (priority, "priority: there are none"),
        ]
    ),
)
def test_what_only_triton_has_is_unimplemented(kserve, request_, message):
    failure = failure_of(kserve.ModelInfer, request_)
    assert failure.code() is UNSUPPORTED
    assert failure.details().startswith(message)


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("SystemSharedMemoryRegister", messages.SystemSharedMemoryRegisterRequest(name="a")),
        ("CudaSharedMemoryRegister", messages.CudaSharedMemoryRegisterRequest(name="a")),
        ("TraceSetting", messages.TraceSettingRequest()),
        ("LogSettings", messages.LogSettingsRequest()),
        ("RepositoryModelLoad", messages.RepositoryModelLoadRequest(model_name="tiny-bert")),
        ("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name="tiny-bert")),
    ],
)
def test_methods_that_the_server_lacks_are_unimplemented(kserve, method, request_):
    assert failure_of(getattr(kserve, method), request_).code() is UNSUPPORTED


def test_clients_may_begin_anew_with_no_regions_of_shared_memory(kserve):
    kserve.SystemSharedMemoryUnregister(messages.SystemSharedMemoryUnregisterRequest())
    kserve.CudaSharedMemoryUnregister(messages.CudaSharedMemoryUnregisterRequest())
    status = messages.SystemSharedMemoryStatusRequest()
    assert not kserve.SystemSharedMemoryStatus(status).regions
    cuda_status = messages.CudaSharedMemoryStatusRequest()
    assert not kserve.CudaSharedMemoryStatus(cuda_status).regions


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("ModelInfer", infer_request("none", {"TEXT": ["A"]})),
        ("ModelMetadata", messages.ModelMetadataRequest(name="tiny-bert", version="2")),
        ("ModelConfig", messages.ModelConfigRequest(name="none")),
        ("ModelStatistics", messages.ModelStatisticsRequest(name="none")),
    ],
)
def test_unknown_models_are_not_found(kserve, method, request_):
    failure = failure_of(getattr(kserve, method), request_)
    assert failure.code() is NOT_FOUND
    assert failure.details().startswith("model: no such model; there are tiny-bert/1, ")


ANY_TENSOR = st.builds(
    lambda shape, datatype, raw: (shape, datatype, raw),
    st.lists(st.integers(-2, 5), max_size=3),
    st.sampled_from(["BYTES", "FP32", ""]),
    st.one_of(
        st.binary(max_size=20),
        st.lists(st.text(max_size=3), max_size=4).map(raw_texts),
    ),
)


@given(ANY_TENSOR)
def test_any_raw_tensor_is_read_as_its_texts_or_refused(tensor):
    shape, datatype, raw = tensor
    request = messages.ModelInferRequest(raw_input_contents=[raw])
    request.inputs.add(name="TEXT", datatype=datatype, shape=shape)
    try:
        found = read_inputs(request, request_limits())["TEXT"]
    except InvalidRequest:
        return
    assert raw_texts(found.texts) == raw
    assert len(found.texts) == shape[0]


ANY_VALUE = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=30)
)


@given(
    st.sampled_from(["beam_size", "splitting", "controls", "sampling", "seed", "patience", "x"]),
    ANY_VALUE,
)
def test_any_parameter_sets_its_field_or_is_refused_without_its_value(name, value):
    message = translation_pb2.TranslateRequest()
    parameters = infer_request("m", {}, **{name: value}).parameters
    try:
        set_parameters(message, parameters, ("texts",))
        found = None
    except InvalidRequest as error:
        found = error
    if found is not None:
        assert found.field == name
        assert not (isinstance(value, str) and len(value) > 20 and value in str(found))

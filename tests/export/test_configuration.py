import tomllib

import pytest
from attendant_export.arguments import build_parser, read_arguments
from attendant_export.configuration import OPTIONS, write_options

TRAIN = ["train-translation", "--run-dir=run"]


def read(tmp_path, text, *arguments):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding="utf-8")
    return read_arguments([*TRAIN, f"--config={path}", *arguments])


def test_options_of_a_file_are_those_of_the_command_line(tmp_path):
    args = read(
        tmp_path,
        """
        data-dir = "Daten ä"
        max_minutes = 1.5
        swap = true
        post-norm = false
        extra-pairs = ["a.tsv:2", "b.tsv"]
        augment = "all"
        """,
    )

    assert (str(args.data_dir), args.max_minutes) == ("Daten ä", 1.5)
    assert (args.swap, args.post_norm) == (True, False)
    assert (args.extra_pairs, args.augment) == (["a.tsv:2", "b.tsv"], ["all"])


def test_a_required_option_may_be_in_the_file(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("run-dir = 'here'")

    assert str(read_arguments(["train-bert", "--config", str(path)]).run_dir) == "here"


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    assert read(tmp_path, "\ufeffseed = 2").seed == 2


def test_the_command_line_overrides_a_file(tmp_path):
    text = "seed = 2\nmax-steps = 9\nextra-pairs = ['a.tsv']"

    args = read(tmp_path, text, "--seed", "3", "--extra-pairs=b.tsv")

    assert (args.seed, args.max_steps, args.extra_pairs) == (3, 9, ["b.tsv"])


def test_a_value_that_has_the_name_of_an_option_overrides_nothing(tmp_path):
    args = read(tmp_path, "train = ['a.tsv']", "--data-dir", "train")

    assert (str(args.data_dir), args.train) == ("train", ["a.tsv"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-minuets = 3", "max-minuets is not an option; did you mean max-minutes?"),
        ("seed = 1\nseed = 2", "is not TOML: Cannot overwrite a value"),
        ("swap = 'yes'", "swap is 'yes', but must be true or false"),
        ("seed = [1, 2]", "seed is [1, 2], but must be a text or a number"),
        ("augment = [['all']]", "augment is [['all']], but must be a text or a number or a list"),
        ("seed = true", "seed is True, but must be a text or a number"),
        ("config = 'other.toml'", "config is not an option"),
        ("[data]\ntrain = 'a.tsv'", "data is not an option"),
        ("a = 1\nb = 2", "a is not an option; b is not an option"),
    ],
)
def test_a_mistake_in_a_file_is_named(text, message, tmp_path):
    with pytest.raises(ValueError, match="run.toml") as refused:
        read(tmp_path, text)

    assert message in str(refused.value)


def test_a_value_of_a_file_out_of_its_range_is_refused_like_that_of_the_command_line(
    tmp_path, capsys
):
    with pytest.raises(SystemExit):
        read(tmp_path, "max-steps = -1")

    assert "--max-steps: -1 is not an integer of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        TRAIN,
        [*TRAIN, "--swap", '--extra-pairs=a"ö\\\n.tsv:2', "--max-minutes=0.5", "--seed=7"],
        ["train-bert", "--run-dir=b", "--text=t.txt:3", "--contrastive-max-steps=3"],
    ],
)
def test_a_run_can_be_repeated_from_the_options_that_it_keeps(arguments, tmp_path):
    args = read_arguments(arguments)
    write_options(tmp_path, args.parser, args)

    again = read_arguments([arguments[0], f"--config={tmp_path / OPTIONS}"])

    assert {k: v for k, v in vars(again).items() if k not in ("config", "parser")} == {
        k: v for k, v in vars(args).items() if k not in ("config", "parser")
    }
    assert "run-dir" in tomllib.loads((tmp_path / OPTIONS).read_text(encoding="utf-8"))


def test_options_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([*TRAIN, "--max-min=3"])

    assert "unrecognized arguments: --max-min=3" in capsys.readouterr().err

from __future__ import annotations

from pathlib import Path

import pytest

from hybridlab.config import params
from hybridlab.config import preset_files as defaults
from hybridlab.config.params import SequentialParams
from hybridlab.errors import ParameterError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trails": 3}, "did you mean 'trials'"),
        ({"trials": "3"}, "trials = '3'"),
        ({"trials": True}, "trials = True"),
        ({"trials": 0}, "greater than or equal to 1"),
        ({"headless": "on"}, "headless = 'on'"),
        ({"timeout_s": "1e-3"}, "timeout_s"),
        ({"asr_model": "huge"}, "'tiny', 'base'"),
        ({"asr_model": "tiny"}, "set asr_weights to hub, local or random"),
        ({"llm_model": "mini-3b"}, "set llm_weights to hub, local or random"),
        ({"asr_dtype": "int8"}, "openai-whisper cannot keep 'int8'"),
        ({"asr_weights": "local"}, "needs asr_path"),
        ({"card": "t5"}, "choose one of: t4"),
        ({"memory_limit": "t5"}, "choose one of: t4"),
        ({"device": "gpu"}, "choose auto, cpu, cuda"),
        ({"audio": "/no/such/folder"}, "does not exist"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"asr_max_new_tokens": "all"}, "asr_max_new_tokens"),
        ({"asr_decoding": "timestamps"}, "set asr_decoding to auto or plain"),
        ({"language": "klingon"}, "'klingon' is not known; write a code like 'en'"),
        ({"language": False}, "YAML reads a bare no as false; write norwegian"),
        ({"language": "yue"}, "pocket does not know Cantonese"),
        (
            {"language": "de", "asr_model": "tiny.en", "asr_weights": "random"},
            "tiny.en does not know German ('de'); it is for English alone: choose 'tiny'",
        ),
    ],
)
def test_bad_values_are_one_line_that_names_the_fix(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError) as caught:
        SequentialParams.from_mapping(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "code"),
    [("German", "de"), ("en-US", "en"), ("auto", ""), ("", ""), ("norwegian", "no")],
)
def test_a_language_becomes_whisper_s_code(written: str, code: str) -> None:
    assert SequentialParams.from_mapping({"language": written}).language == code
    assert SequentialParams.from_namespace({"language": written}).language == code


def test_every_whisper_of_a_notebook_knows_its_language() -> None:
    english = {"asr_model": "tiny.en", "asr_weights": "random", "language": ""}
    assert SequentialParams.from_mapping(english).asr_model == "tiny.en"
    with pytest.raises(ParameterError, match=r"base\.en does not know French"):
        params.BesideParams.from_mapping({"language": "fr", "asr_models": ["tiny", "base.en"]})
    with pytest.raises(ParameterError, match=r"tiny\.en does not know French"):
        params.LimitsParams.from_mapping({"language": "fr", "fallback_chain": ["base", "tiny.en"]})


def test_a_notebooks_namespace_may_hold_names_of_other_notebooks() -> None:
    found = SequentialParams.from_namespace({"trials": 3, "soak_cycles": 5, "_x": 1, "Path": Path})
    assert found.trials == 3


def test_a_name_that_no_notebook_knows_is_refused_in_a_namespace() -> None:
    with pytest.raises(ParameterError, match="did you mean 'trials'"):
        SequentialParams.from_namespace({"trails": 3})


def test_overrides_give_what_does_not_stand_in_the_cell() -> None:
    cell = {"preset": "option-b", "trials": 3, "overrides": {"rounds": 5, "asr_dtype": "float32"}}
    found = SequentialParams.from_namespace(cell)
    assert (found.trials, found.rounds, found.asr_dtype) == (3, 5, "float32")
    assert found.asr_model == "large-v3"  # the preset's


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ({"overrides": {"trails": 3}}, "did you mean 'trials'"),
        ({"overrides": {"soak_cycles": 3}}, "unknown parameter 'soak_cycles'"),
        ({"overrides": {"trials": "3"}}, "trials = '3'"),
        ({"overrides": ["trials"]}, r"overrides = \['trials'\] is no dict"),
        ({"overrides": {"trials": 3}, "trials": 5}, "trials is given twice, as 5 and in overrides"),
        ({"overrides": {"voxtral": "pocket"}}, "'voxtral' is now 'llm_model'"),
    ],
)
def test_overrides_are_validated_like_the_cell(cell: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        SequentialParams.from_namespace(cell)


def test_a_cell_that_is_run_again_takes_no_result_for_a_parameter() -> None:
    cells = ["", "trials = 3  # @param", "SequentialParams.from_namespace(globals())", "rows = [1]"]
    kernel = {"In": [*cells, cells[2]], "trials": 3, "rows": [1]}
    assert SequentialParams.from_namespace(kernel).trials == 3
    wrong = {"In": [*cells, "trails = 4  # @param", cells[2]], "trails": 4}
    with pytest.raises(ParameterError, match="did you mean 'trials'"):
        SequentialParams.from_namespace(wrong)


def test_every_preset_is_valid_for_every_notebook(project: Path) -> None:
    presets = [p for p in (project / "params").glob("*.yaml") if p.name != "claims.yaml"]
    assert {p.stem for p in presets} >= {
        "pocket",
        "full-cpu",
        "colab-t4",
        "option-a",
        "option-b",
        "option-c",
    }
    for preset in presets:
        given = defaults.read_yaml(preset)
        given |= {name: "" for name, value in given.items() if value == defaults.TO_BE_GIVEN}
        resolved = params.split(given, params.NOTEBOOKS.values())
        assert set(resolved) == set(params.NOTEBOOKS)


def test_what_a_preset_leaves_to_its_reader_is_one_line(project: Path) -> None:
    given = defaults.read_yaml(project / "params" / "own-audio.yaml")
    for wrong in (given, {"preset": "own-audio"}):
        with pytest.raises(ParameterError, match="parameter audio has to be given: -p audio=VALUE"):
            params.split(wrong, params.NOTEBOOKS.values())
    audio = str(project / "hybridlab" / "audio" / "clips")
    assert SequentialParams.from_mapping({"preset": "own-audio", "audio": audio}).audio == audio


def test_options_are_the_right_sizes(project: Path) -> None:
    sizes = {
        name: defaults.read_yaml(project / "params" / f"{name}.yaml")["asr_model"]
        for name in ("option-a", "option-b", "option-c")
    }
    assert sizes == {"option-a": "medium", "option-b": "large-v3", "option-c": "base"}


def test_yaml_that_is_not_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ParameterError, match="name: value"):
        defaults.read_yaml(path)
    path.write_text("a: [1\n")
    with pytest.raises(ParameterError, match="is not YAML"):
        defaults.read_yaml(path)
    with pytest.raises(ParameterError, match="does not exist"):
        defaults.read_yaml(tmp_path / "none.yaml")


def test_a_preset_is_known_by_its_bare_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pocket", "pocket.yaml"):
        assert defaults.parameter_file(name) == defaults.PRESETS_DIR / "pocket.yaml"
    (tmp_path / "pocket.yaml").write_text("trials: 3\n")
    assert defaults.read_yaml(defaults.parameter_file("pocket.yaml")) == {"trials": 3}  # own first
    assert defaults.parameter_file("mine/pocket") == Path("mine/pocket")
    with pytest.raises(ParameterError, match="did you mean 'colab-t4'"):
        defaults.parameter_file("colab-t5")


def test_yaml_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.yaml").write_text("a: 1\n")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ParameterError, match=r"x\.yaml cannot be read: Permission denied"):
        defaults.read_yaml(tmp_path / "x.yaml")


def test_overrides_are_read_as_yaml() -> None:
    assert params.parse_override("trials", "3") == 3
    assert params.parse_override("asr_models", "[tiny, base]") == ["tiny", "base"]
    with pytest.raises(ParameterError, match="did you mean"):
        params.parse_override("trails", "3")


def test_no_preset_with_released_weights_limits_what_whisper_says(project: Path) -> None:
    for name in defaults.presets(project / "params"):
        given = defaults.read_yaml(project / "params" / f"{name}.yaml")
        if "hub" in (given.get("asr_weights"), given.get("llm_weights")):
            assert {"max_new_tokens", "asr_max_new_tokens", "sizes_new_tokens"}.isdisjoint(given)
        if given.get("asr_weights") == "random":
            assert "asr_max_new_tokens" in given, name

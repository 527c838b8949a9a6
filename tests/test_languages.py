"""Languages of the need: who is trained on them, which published score decides, and what is said
where neither is known."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.catalog import score_of, scores
from packager.catalog.benchmarks import BY_LANGUAGE, FILE, read_scores
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.need.languages import codes, floor, in_words, language, languages, named, parse
from packager.need.usecases import benchmark, benchmarks
from packager.need.workload import Workload, merge
from packager.select import Candidate, candidates, choose
from targets import registry
from tests.support.plain_runtime import PLAIN, chat, fit, target

SMALL = """
[floor]
score = 50.0
reason = "twice what guessing gives"
source = "the definition"

[benchmark]
"X in German" = "what it measures"

[named.Qwen]
families = ["Qwen"]
source = "a page"
languages = ["de"]

[languages]
de = { name = "German", tests = ["X in German"] }
"""


def against(name: str, *spoken: str) -> list[str]:
    """What is said against one variant of several that must answer in these languages."""
    found = fit(target(), chat(languages=codes(spoken)), name, "Qwen3-32B")
    return [
        str(reason)
        for candidate in found
        if candidate.variant.name == name
        for reason in candidate.reasons
    ]


def chosen(*spoken: str) -> Candidate | None:
    return choose(fit(target(), chat(languages=codes(spoken))))


# The data


def test_every_test_of_a_language_is_a_benchmark_that_is_described_and_has_a_score() -> None:
    scored = {
        score.benchmark
        for rows in (*read_scores(FILE).values(), *read_scores(BY_LANGUAGE).values())
        for score in rows
    }
    tests = {name for known in languages() for name in known.tests}
    assert tests <= set(benchmarks()) and tests <= scored


def test_every_family_for_which_languages_are_named_is_in_the_catalogue_and_names_english() -> None:
    families = {variant.family for variant in catalog.load()}
    spoken = {family: found.languages for family in families if (found := named(family))}
    assert {"Qwen", "Qwen1.5", "Qwen2", "Qwen2.5", "Qwen3", "Qwen3-2507", "Qwen3.5"} <= set(spoken)
    assert all("en" in found for found in spoken.values())
    assert len(spoken["Qwen2.5"]) == 29 and spoken["Qwen2.5"] < spoken["Qwen3"]
    assert named("Qwen2.5-Coder") is None


def test_scores_by_language_belong_to_variants_of_the_catalogue_and_repeat_none_of_the_others() -> (
    None
):
    by_language = read_scores(BY_LANGUAGE)
    assert by_language.keys() <= {variant.repo_id for variant in catalog.load()}
    # A benchmark stands in one of the files alone: what is asked of one is not looked for in both.
    names, others = (
        {score.benchmark.casefold() for rows in file.values() for score in rows}
        for file in (by_language, read_scores(FILE))
    )
    assert names and names.isdisjoint(others)


@pytest.mark.parametrize("mode", ["thinking", "non-thinking"])
@pytest.mark.parametrize("name", ["Qwen3-0.6B", "Qwen3-4B", "Qwen3-32B"])
def test_the_scores_of_single_languages_agree_with_the_published_mean_over_all_of_them(
    name: str, mode: str
) -> None:
    variant = catalog.find(name)
    single = [
        score.value
        for score in scores(variant.repo_id)
        if score.benchmark.startswith("MMMLU in ") and score.mode == mode
    ]
    whole = score_of(variant, "MMMLU (14 languages)", mode)
    # The mean is over 14 languages, English and some with little text among them; nine are
    # published singly.
    assert whole is not None and len(single) == 9
    assert -1 <= mean(single) - whole.value <= 8


def test_a_language_is_known_by_its_code_and_by_its_name_in_any_case() -> None:
    assert language("de") == language(" German ") == language("GERMAN")
    assert codes(["German", "de", "Swahili"]) == ("de", "sw")


@pytest.mark.parametrize(
    ("word", "code"),
    [
        ("deu", "de"),
        ("ger", "de"),
        ("de-AT", "de"),
        ("pt_BR", "pt"),
        ("zh-Hant", "zh"),
        ("Farsi", "fa"),
        ("Mandarin", "zh"),
        ("no", "nb"),
        ("Deutsch", "de"),
        ("français", "fr"),
        ("РУССКИЙ", "ru"),
        ("中文", "zh"),
    ],
)
def test_other_names_longer_codes_and_regions_are_understood(word: str, code: str) -> None:
    assert language(word).code == code


def test_no_word_means_two_languages() -> None:
    words = [
        (word.casefold(), known.code)
        for known in languages()
        for word in {known.code, known.name, *known.also}
    ]
    assert len(dict(words)) == len(set(words))


@given(st.text(max_size=30))
def test_any_text_is_a_language_or_is_refused_in_a_sentence(text: str) -> None:
    try:
        assert language(text).code in {known.code for known in languages()}
    except PackError as error:
        assert error.exit_code == ExitCode.USAGE and "ISO 639" in error.hint


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("score = 50.0", 'score = "half"', "floor.score must be float"),
        ('source = "the definition"', "", "has no 'source'"),
        (
            'languages = ["de"]',
            'languages = ["da"]',
            "has 'da', which [languages] does not define. Did you mean 'de'?",
        ),
        ('tests = ["X in German"]', "tests = [3]", "languages.de.tests must be a list of texts"),
        (
            'families = ["Qwen"]',
            'families = ["Qwen", "Qwen"]',
            "families has 'Qwen', which another table has as well",
        ),
        ('"what it measures"', '""', "benchmark.X in German must say what it measures"),
        (
            "[named.Qwen]",
            "[name.Qwen]",
            "name is not a key of the catalogue. Did you mean 'named'?",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, says: str
) -> None:
    path = tmp_path / "languages.toml"
    path.write_text(SMALL)
    assert parse(path).by_code["de"].tests == ("X in German",)
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(PackError) as caught:
        parse(path)
    assert says in str(caught.value) and path.name in str(caught.value)


def test_languages_are_written_in_a_sentence_and_what_is_not_known_is_left_out() -> None:
    assert in_words(()) == ""
    assert in_words(["de"]) == " in German"
    assert in_words(["de", "sw", "fr"]) == " in German, Swahili and French"
    assert in_words(["de", "tlh", 3, None]) == " in German"


# What a language asks


def test_whoever_needs_german_gets_the_smallest_that_scores_in_german() -> None:
    plain, german = chosen(), chosen("German")
    assert plain is not None and plain.variant.name == "Qwen3-0.6B"
    assert german is not None and german.variant.name == "Qwen3-1.7B"
    assert german.scores["MMMLU in German"] == 53.2
    assert against("Qwen3-0.6B", "de") == ["score: needs MMMLU in German of 50 or more, has 37.8"]


def test_english_asks_nothing_that_the_use_case_does_not_ask() -> None:
    assert floor("en") is None
    assert chosen("English") == chosen()


def test_a_language_that_the_publisher_does_not_name_rejects_a_generation_whatever_its_scores() -> (
    None
):
    assert against("Qwen2.5-7B-Instruct", "Swahili")[0] == (
        "language: needs a model whose publisher names Swahili, has 29 other languages"
    )
    assert against("Qwen2.5-7B-Instruct", "Korean") == [
        "score: needs KMMLU of 50 or more, has 46.59"
    ]


def test_where_a_benchmark_is_only_published_for_a_family_of_languages_that_mean_decides() -> None:
    assert against("Qwen3-1.7B", "Turkish") == [
        "score: needs Belebele in Turkic languages of 50 or more, has 48"
    ]
    assert against("Qwen3-4B", "Turkish") == []


def test_two_languages_that_fail_by_the_same_score_are_one_reason() -> None:
    said = against("Qwen2.5-1.5B-Instruct", "Swedish", "Danish")
    assert [reason.partition(":")[0] for reason in said] == [
        "language",
        "language",
        "score",
        "score",
    ]
    assert said[3] == "score: needs Belebele in Indo-European languages of 50 or more, has 41.5"


def test_a_language_without_any_benchmark_is_the_publishers_word_alone_and_a_note_says_so() -> None:
    found = chosen("Occitan")
    assert found is not None and found.variant.family.startswith("Qwen3")
    assert (
        "No benchmark is about answers in Occitan: only the publisher's claim supports them."
        in found.notes
    )


def test_a_language_that_nobody_speaks_for_is_served_by_nobody() -> None:
    # No source lists the languages of Qwen2.5-Coder, and no benchmark is about Welsh.
    assert against("Qwen2.5-Coder-7B-Instruct", "Welsh")[-1] == (
        "language: needs a model whose publisher names Welsh, has no list by its publisher, and no "
        "benchmark is about it"
    )
    assert not any(
        reason.startswith("language") for reason in against("Qwen2.5-Coder-7B-Instruct", "German")
    )


def test_a_floor_of_the_users_own_replaces_that_of_the_language() -> None:
    assert benchmark("mmmlu in german") == "MMMLU in German"
    found = choose(fit(target(), chat(languages=("de",), min_scores={"MMMLU in German": 30.0})))
    assert found is not None and found.variant.name == "Qwen3-0.6B"


def test_a_floor_on_one_test_leaves_those_that_decide_for_other_variants() -> None:
    found = fit(
        target(), chat(languages=("de",), min_scores={"INCLUDE": 30.0}), "Qwen3-0.6B", "Qwen3-32B"
    )
    said = [
        str(reason) for one in found if one.variant.name == "Qwen3-0.6B" for reason in one.reasons
    ]
    assert said == ["score: needs MMMLU in German of 50 or more, has 37.8"]


def test_of_the_tests_of_a_language_the_one_that_decides_is_shown() -> None:
    found = choose(fit(target(), chat(languages=("tr",)), "Qwen3-4B"))
    assert (
        found is not None
        and "Belebele in Turkic languages" in found.scores
        and "INCLUDE" not in found.scores
    )


def test_a_newer_variant_without_the_test_of_a_language_is_no_worse_off_than_the_older_one() -> (
    None
):
    found = chosen("Turkish")
    assert found is not None and found.variant.name == "Qwen3-4B-Instruct-2507"
    assert "Belebele in Turkic languages" not in found.scores


def test_who_names_a_model_gets_it_with_a_note() -> None:
    found = choose(
        candidates(
            target(),
            chat(languages=("sw",)),
            [catalog.find("Qwen2.5-0.5B-Instruct")],
            [PLAIN],
            named=True,
        )
    )
    assert found is not None
    assert any("publisher names Swahili" in note for note in found.notes)


def test_languages_of_a_target_stay_with_every_use_case_until_others_are_asked_for() -> None:
    device = Workload(languages=("de",))
    assert merge({"use_case": "code"}, device).languages == ("de",)
    assert merge({"languages": ("fr",)}, device).languages == ("fr",)


# From outside


def test_the_command_line_takes_names_and_codes_and_says_how_the_same_is_built(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        main(
            [
                "fit",
                "--target",
                "laptop-cpu",
                "--language",
                "German,sw",
                "--language",
                "de",
                "--min-score",
                "ifeval=40",
            ]
        )
        == ExitCode.DONE
    )
    shown = capsys.readouterr()
    assert (
        "qwen-pack build --target laptop-cpu --min-score IFEval=40 --language de,sw --language de"
        in shown.err
    )
    assert main(["fit", "--target", "laptop-cpu", "--language", "de", "--json"]) == ExitCode.DONE
    found = json.loads(capsys.readouterr().out)
    assert (
        found["workload"]["languages"] == ["de"] and found["chosen"]["variant"] == "Qwen/Qwen3-1.7B"
    )


def test_an_unknown_language_is_one_sentence_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--target", "laptop-cpu", "--language", "Germann"]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert (
        "There is no language 'Germann'. Did you mean 'German'" in error
        and "Traceback" not in error
    )


def test_a_device_file_may_ask_for_languages_and_a_wrong_one_is_pointed_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["targets", "new", "mine", "--from", "laptop-cpu"]) == ExitCode.DONE
    path = tmp_path / "mine.toml"
    plain = path.read_text().partition("[workload]")[0]
    path.write_text(plain + '[workload]\nlanguages = ["German"]\n')
    assert registry.target(str(path)).workload.languages == ("de",)
    path.write_text(plain + '[workload]\nlanguages = ["Germann"]\n')
    capsys.readouterr()
    assert main(["targets", "check", str(path)]) == ExitCode.USAGE
    assert "workload.languages" in capsys.readouterr().err


def test_models_shows_the_languages_and_who_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "Qwen2.5-0.5B-Instruct"]) == ExitCode.DONE
    assert "29 (dialects of one counted once): Arabic, Bengali, " in capsys.readouterr().out
    assert main(["models", "--language", "Swahili", "--json"]) == ExitCode.DONE
    families = {row["family"] for row in json.loads(capsys.readouterr().out)["variants"]}
    assert "Qwen3" in families and "Qwen2.5" not in families

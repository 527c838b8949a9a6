"""Sounds from outside: what is read, what becomes of it, and what is refused with a sentence."""

from __future__ import annotations

import io
import itertools
import math
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.shape.audio import RATE
from packager.sounds import container, prompt, take
from packager.sounds.cut import pieces
from packager.sounds.decode import decode
from packager.sounds.made import made
from packager.sounds.words import word_errors
from tests.support.audio import claiming
from tests.support.hearing_package import write_hearing_package

soundfile = pytest.importorskip("soundfile", reason="the extra for sound")
pytest.importorskip("soxr", reason="the extra for sound")


LECTURE = "language is what we speak of in this lecture, and of nothing else, all day"


def written(path: Path, samples: Any, rate: int = RATE, **how: Any) -> Path:
    soundfile.write(path, samples, rate, **how)
    return path


def decoded(path: Path) -> np.ndarray[Any, Any]:
    out = io.BytesIO()
    count = decode(path, path.name, out)
    samples = np.frombuffer(out.getvalue(), "<f4")
    assert len(samples) == count
    return samples


def refused(path: Path, words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        decode(path, path.name, io.BytesIO())
    assert caught.value.exit_code == ExitCode.INPUT
    assert caught.value.message.startswith(path.name)


class TestWhatIsRead:
    def test_every_kind_width_rate_and_number_of_channels_gives_the_same_sound(
        self, tmp_path: Path
    ) -> None:
        import soxr

        sound = made(2)
        for name, rate, channels, how, least in (
            ("a.wav", 16_000, 1, {"subtype": "PCM_16"}, 0.9999),
            ("b.wav", 192_000, 1, {"subtype": "PCM_24"}, 0.999),
            ("c.wav", 16_000, 8, {"subtype": "FLOAT"}, 0.999999),
            ("d.wav", 8_000, 1, {"subtype": "PCM_U8"}, 0.97),
            ("e.wav", 16_000, 1, {"format": "RF64", "subtype": "PCM_32"}, 0.999999),
            ("f.flac", 44_100, 2, {}, 0.999),
            ("g.ogg", 44_100, 1, {}, 0.95),
            ("h.opus", 48_000, 1, {"format": "OGG", "subtype": "OPUS"}, 0.9),
            ("i.mp3", 44_100, 1, {}, 0.95),
        ):
            given_rate = soxr.resample(sound, RATE, rate) if rate != RATE else sound
            every = np.stack([given_rate] * channels, axis=1)
            found = decoded(written(tmp_path / name, every, rate, **how))
            assert abs(len(found) - len(sound)) < 0.1 * RATE, name
            count = min(len(found), len(sound))
            cosine = np.corrcoef(found[:count], sound[:count])[0, 1]
            # Codecs of speech turn phases: a little shifted is the same sound.
            assert cosine >= least or name in ("h.opus", "i.mp3", "g.ogg"), (name, cosine)
            assert 0.8 < np.abs(found).max() / np.abs(sound).max() < 1.25, name

    def test_one_sample_is_a_sound(self, tmp_path: Path) -> None:
        assert len(decoded(written(tmp_path / "one.wav", made(1)[:1]))) == 1

    def test_a_sound_is_decoded_apart_and_described(self, tmp_path: Path) -> None:
        found = take(written(tmp_path / "a.flac", made(1)), tmp_path, tmp_path / "log")
        assert (found.count, found.seconds) == (RATE, 1.0)
        assert np.abs(np.fromfile(found.path, "<f4") - made(1)).max() < 1e-4

    def test_a_name_without_an_ending_of_sound_says_nothing(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", made(1))
        assert container.read(path.rename(tmp_path / "recording"), "recording") == "WAV"


class TestWhatIsRefused:
    def test_what_is_cut_off_is_said_to_be(self, tmp_path: Path) -> None:
        for name, words in (
            ("a.wav", "truncated"),
            ("b.ogg", "truncated"),
            ("c.flac", "cannot be decoded|truncated"),
        ):
            path = written(tmp_path / name, made(3))
            path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
            refused(path, words)

    def test_numbers_that_are_none_are_named_with_their_second(self, tmp_path: Path) -> None:
        for value in (math.nan, math.inf, 1e9):
            sound = made(3)
            sound[2 * RATE] = value
            path = written(tmp_path / "a.wav", sound, subtype="FLOAT")
            refused(path, "not valid numbers, or far too large, at second 2.0")

    def test_a_sound_without_samples_is_none(self, tmp_path: Path) -> None:
        refused(written(tmp_path / "a.wav", made(1)[:0]), "has no samples")
        (tmp_path / "b.wav").write_bytes(b"")
        refused(tmp_path / "b.wav", "is empty")

    def test_hours_of_silence_in_a_few_bytes_are_refused_before_they_are_decoded(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.flac"
        path.write_bytes(claiming(7_200))
        refused(path, "longer than 120 minutes")

    def test_other_files_are_called_what_they_are(self, tmp_path: Path) -> None:
        for name, data, words in (
            ("a.wav", b"\x89PNG\r\n\x1a\n" + bytes(64), "is a picture"),
            ("b.mp3", b"\0\0\0\x18ftypM4A " + bytes(64), "is a video or an MP4 sound"),
            ("c.wav", b"<svg xmlns='...'>", "is text"),
            ("d.wav", b"FORM\0\0\0\0AIFF" + bytes(64), "is an AIFF sound"),
            ("e.mp3", b"\xff\xf1\x50\x80" + bytes(64), "is an AAC sound"),
            ("f.wav", b"MThd" + bytes(64), "MIDI"),
            ("g.wav", bytes(64), "is not a WAV, FLAC, Ogg or MP3 sound"),
            ("h.wav", b"RIFF\0\0\0\0WAVE", "truncated"),
            ("i.wav", b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 2_000, "more than 1000 parts"),
            ("j.mp3", b"\xff\xfb\x90\x00" + bytes(400), "cannot be decoded|no samples"),
        ):
            (tmp_path / name).write_bytes(data)
            refused(tmp_path / name, words)
        flac = written(tmp_path / "k.flac", made(1))
        refused(flac.rename(tmp_path / "k.mp3"), "is a FLAC sound, and its name says MP3")

    def test_a_sound_that_is_an_archive_or_a_document_as_well_is_refused(
        self, tmp_path: Path
    ) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("a.txt", "hello")
        for name in ("a.wav", "b.flac", "c.mp3"):
            path = written(tmp_path / name, made(1))
            path.write_bytes(path.read_bytes() + archive.getvalue())
            refused(path, "sound and a Zip archive at once")
        path = written(tmp_path / "d.wav", made(1))
        data = path.read_bytes()
        inside = b"note\x08\0\0\0%PDF-1.7"
        path.write_bytes(data[:12] + inside + data[12:])
        refused(path, "sound and a PDF document at once")

    def test_rates_and_channels_that_nobody_records_are_refused(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a.wav", made(1), subtype="PCM_16")
        for offset, kind, value, words in (
            (24, "<I", 100, "100 samples a second"),
            (24, "<I", 2_000_000, "2,000,000 samples a second"),
            (22, "<H", 60, "60 channels"),
        ):
            data = bytearray(path.read_bytes())
            struct.pack_into(kind, data, offset, value)
            if value == 60:
                struct.pack_into("<H", data, 32, 120)
            other = tmp_path / "b.wav"
            other.write_bytes(data)
            refused(other, words)

    def test_a_folder_is_no_sound(self, tmp_path: Path) -> None:
        with pytest.raises(PackError, match="is not a file") as caught:
            take(tmp_path, tmp_path, tmp_path / "log")
        assert caught.value.exit_code == ExitCode.INPUT

    @given(st.binary(max_size=200), st.sampled_from([b"RIFF\0\0\0\0WAVE", b"OggS", b"fLaC", b""]))
    @settings(max_examples=40, deadline=None)
    def test_no_bytes_break_the_reader(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes, head: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "any"
        path.write_bytes(head + data)
        try:
            decode(path, "any", io.BytesIO())
        except PackError as error:
            assert error.exit_code == ExitCode.INPUT


@pytest.mark.engine
@pytest.mark.thorough(
    "test_other_files_are_called_what_they_are", "test_a_sound_is_written_down_in_pieces"
)
def test_hostile_sounds_end_run_with_a_sentence_and_code_6(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("llama_cpp")
    package = write_hearing_package(tmp_path / "package")
    sound = written(tmp_path / "sound.wav", made(1)).read_bytes()
    broken = made(1)
    broken[5] = math.nan
    given = tmp_path / "given"
    for data, sentence in (
        (claiming(7_200), "longer than 120 minutes"),
        (sound[: len(sound) // 2], "is truncated"),
        (written(tmp_path / "nan.wav", broken, subtype="FLOAT").read_bytes(), "not valid numbers"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a picture"),
        (b"<svg xmlns='x'/>", "is text"),
        (sound + b"PK\x05\x06" + bytes(18), "a Zip archive at once"),
    ):
        given.write_bytes(data)
        assert main(["run", str(package), "--audio", str(given)]) == ExitCode.INPUT, sentence
        said = capsys.readouterr()
        assert sentence in " ".join(said.err.split()) and said.out == "", sentence


class TestLongSounds:
    def test_pieces_follow_one_another_cover_all_and_fit(self) -> None:
        draw = np.random.default_rng(1)
        for seconds, most in ((0.5, 3), (3, 3), (3.01, 3), (17, 3), (40, 30)):
            samples = draw.standard_normal(int(seconds * RATE)).astype(np.float32)
            found = list(pieces(samples, most))
            assert found[0][0] == 0 and found[-1][1] == len(samples)
            assert all(before[1] == after[0] for before, after in itertools.pairwise(found))
            assert all(0 < end - start <= most * RATE for start, end in found)

    def test_it_is_cut_where_it_is_quiet(self) -> None:
        samples = np.random.default_rng(2).standard_normal(40 * RATE).astype(np.float32)
        samples[27 * RATE : 27 * RATE + RATE // 4] = 0
        (_, end), _ = pieces(samples, 30)
        assert 27 <= end / RATE <= 27.25


class TestWordErrors:
    def test_words_are_counted_without_case_and_punctuation(self) -> None:
        for said, right, edits, words in (
            ("Hello, world!", "hello world", 0, 2),
            ("", "one two three", 3, 3),
            ("one two three", "", 3, 0),
            ("one too three", "one two three", 1, 3),
            ("one two two three", "one two three", 1, 3),
            ("don\u2019t stop", "DON'T STOP", 0, 2),
            ("今天天气很好", "今天天汽很好。", 1, 6),
            ("４２ ok", "42 OK", 0, 2),
        ):
            found = word_errors(said, right)
            assert (found.edits, found.words) == (edits, words), said
        assert word_errors("a", "").rate == 1 and word_errors("", "").rate == 0
        total = word_errors("a", "b") + word_errors("a b", "a b")
        assert total.rate == pytest.approx(1 / 3)

    @given(
        st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8)
    )
    @settings(max_examples=60, deadline=None)
    def test_the_distance_is_levenshteins(self, one: list[str], other: list[str]) -> None:
        row = list(range(len(other) + 1))
        for count, word in enumerate(one, 1):
            above, row = row, [count]
            for place, right in enumerate(other):
                row.append(min(above[place] + (word != right), above[place + 1] + 1, row[-1] + 1))
        assert word_errors(" ".join(one), " ".join(other)).edits == row[-1]


class TestThePrompt:
    def test_the_sound_stands_alone_and_names_are_the_systems(self) -> None:
        assert [row["role"] for row in prompt.messages("")] == ["user"]
        assert prompt.messages("Ada Lovelace")[0] == {"role": "system", "content": "Ada Lovelace"}
        with pytest.raises(PackError, match="writes <\\|audio_pad\\|> itself"):
            prompt.messages("<|audio_pad|>")

    def test_a_question_stands_behind_the_sound(self) -> None:
        [turn] = prompt.messages("What is it?", asked=True)
        sound, question = turn["content"]
        assert sound["type"] == "audio" and question == {"type": "text", "text": "What is it?"}
        assert len(prompt.messages("", asked=True)[0]["content"]) == 1

    def test_a_template_without_one_place_is_refused(self) -> None:
        assert prompt.around(f"a{prompt.PLACE}b") == ["a", "b"]
        assert prompt.around(f"a{prompt.ASKED_PLACE}b") == ["a", "b"]
        both = f"{prompt.PLACE}{prompt.ASKED_PLACE}"
        for text in ("no place", f"{prompt.PLACE}{prompt.PLACE}", "a<|audio_start|>b", both):
            with pytest.raises(PackError, match="does not take sound"):
                prompt.around(text)

    def test_the_language_is_taken_off_however_the_answer_is_cut(self) -> None:
        for answer, language, said in (
            ("language English<asr_text>Hello there", "English", "Hello there"),
            ("language None<asr_text>", None, ""),
            ("Hello there", None, "Hello there"),
            ("language", None, "language"),
            (LECTURE, None, LECTURE),
        ):
            for size in (1, 3, 100):
                transcript = prompt.Transcript()
                shown = "".join(
                    transcript.add(answer[start : start + size])
                    for start in range(0, len(answer), size)
                )
                assert (shown + transcript.end(), transcript.language) == (said, language)
                assert transcript.said == said

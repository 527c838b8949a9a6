"""Forms of requests (multipart/form-data): what clients send is read, and nothing else takes more
than a sentence."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager.shipping.server import forms
from packager.shipping.server.refused import Refused

TYPE = "multipart/form-data; boundary=abc"
FIELD = b'--abc\r\nContent-Disposition: form-data; name="model"\r\n\r\nany\r\n'
FILE = (
    b'--abc\r\nContent-Disposition: form-data; name="file"; filename="a;\\"b\\".wav"\r\n'
    b"Content-Type: audio/wav\r\n\r\n"
)
END = b"\r\n--abc--\r\n"


def test_fields_and_files_are_read_as_they_were_sent() -> None:
    sound = bytes(range(256)) * 4 + b"\r\n--ab\r\n"
    body = b"nobody reads this\r\n" + FIELD + FILE + sound + END
    for header in (TYPE, 'Multipart/Form-Data; charset=x; boundary="abc"'):
        form = forms.read(header, body)
        assert (form.text("model"), form.text("prompt")) == ("any", None)
        assert form.files == {"file": [sound]}


@pytest.mark.parametrize(
    ("header", "body", "words"),
    [
        ("application/json", b"{}", "is not a form"),
        ("multipart/form-data", FIELD + END, "is not a form"),
        ("multipart/form-data; boundary=", FIELD + END, "is not a form"),
        (f"multipart/form-data; boundary={'a' * 71}", b"", "is not a form"),
        (TYPE + ";" * 60_000 + '"' * 5_000, b"", "no boundary"),
        (TYPE, b"", "no boundary"),
        (TYPE, b"--other--", "no boundary"),
        (TYPE, FIELD, "is cut off"),
        (TYPE, FILE + bytes(100), "is cut off"),
        (TYPE, FIELD + b"--abcd\r\n", "stand alone"),
        (TYPE, FIELD * 65 + b"--abc--", "more than 64 fields"),
        (TYPE, FIELD + FIELD + b"--abc--", "`model` more than once"),
        (TYPE, b"--abc\r\nx: " + b"y" * 5_000 + b"\r\n\r\n" + END, "headers do not end"),
        (TYPE, b"--abc\r\n\r\n\r\nany" + END, "without a name"),
        (TYPE, FIELD.replace(b"form-data", b"attachment") + b"--abc--", "without a name"),
        (TYPE, FIELD.replace(b"any", b"\xff") + b"--abc--", "not UTF-8"),
        (TYPE, FIELD.replace(b"any", b"a" * 70_000) + b"--abc--", "more than 65536 bytes"),
        (
            TYPE,
            FILE.replace(b"Type: audio/wav", b"Transfer-Encoding: base64") + END,
            "in an encoding",
        ),
    ],
)
def test_what_is_no_form_is_refused_with_a_sentence(header: str, body: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        forms.read(header, body).text("model")


def test_a_file_of_line_breaks_takes_the_memory_of_the_file_alone() -> None:
    body = FIELD + FILE + b"\r\n" * (4 << 20) + END
    tracemalloc.start()
    form = forms.read(TYPE, body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(form.files["file"][0]) == 8 << 20 and peak < 9 << 20


@given(
    st.lists(
        st.one_of(
            st.sampled_from([FIELD, FILE, END, b"--abc", b"\r\n", b"\r\n\r\n"]),
            st.binary(max_size=8),
        ),
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_bytes_raise_anything_but_the_sentence(pieces: list[bytes]) -> None:
    try:
        forms.read(TYPE, b"".join(pieces))
    except Refused as refusal:
        assert str(refusal)

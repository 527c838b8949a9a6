"""A model behind an agent is a session as any other: the same tokens, the same logits, its times
the device's own; and whatever happens to the device ends in a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from packager.cores import Cores, Kind, cores
from packager.errors import ExitCode, PackError
from packager.lab.agent import Agent
from packager.lab.gauges import Device, Reach
from packager.lab.link import Link
from packager.lab.session import Session
from packager.measure.gauges.machine import gauges_of
from packager.measure.thread_search import search
from packager.measure.trials import answer
from packager.records.measurement import Through
from packager.session import Stamped
from tests.support import gguf_checkpoints
from tests.support.lab import one_agent
from tests.support.make_checkpoint import Silent
from tests.support.trained_package import TRAINED

pytestmark = pytest.mark.engine

CONTEXT = 256
PROMPT = [5, 300, 17, 411, 42, 256, 8, 77]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Agent:
    return one_agent(tmp_path_factory)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_checkpoints.build(
        TRAINED, tmp_path_factory.mktemp("the model's") / "model.gguf", "Q8_0"
    )


def settings(argv: list[str], model: Path, machine: Cores | None = None) -> dict[str, Any]:
    reach = Reach(tuple(argv), str(model), machine or cores(), {"architecture": "a"}, Through())
    return {"context": CONTEXT, "kv": "f16", "threads": 1, "lab": reach.to_json()}


@pytest.fixture
def remote(agent: Agent, model: Path) -> Iterator[Session]:
    session = Session("", settings([str(agent.path)], model))
    yield session
    session.close()
    Device.leave()


@pytest.fixture
def local(model: Path) -> Iterator[Any]:
    from targets.llama_cpp.session import Session as Here

    session = Here(str(model), {"context": CONTEXT, "kv": "f16", "threads": 1})
    yield session
    session.close()


def greedy(session: Any, count: int = 24, stop: bool = False) -> list[int]:
    return session.generate(PROMPT, count, lambda _: None, stop=stop)  # type: ignore[no-any-return]


def test_an_agent_of_the_same_library_says_what_the_session_of_this_machine_says(
    remote: Session, local: Any
) -> None:
    assert greedy(remote) == greedy(local)
    assert greedy(remote, stop=True) == greedy(local, stop=True)
    text = 'Grüße, <|im_start|>user\n你好 {"a": 1}\0\t\\ '
    ids = remote.encode(text)
    assert ids == local.encode(text)
    assert remote.decode(ids) == local.decode(ids)
    # The middle of a character is not text, and arrives as what it is.
    assert [remote.decode([one]) for one in ids] == [local.decode([one]) for one in ids]
    assert remote.decode([]) == "" == local.decode([])
    assert remote.ends() == local.ends()
    assert remote.chat_template() == local.chat_template()
    long = (PROMPT * 40)[:CONTEXT]
    mine = np.concatenate([block.copy() for block in local.logits(long)])
    theirs = np.concatenate([block.copy() for block in remote.logits(long)])
    assert np.array_equal(mine, theirs)


def test_the_library_takes_its_working_memory_from_the_agent_which_aligns_it(agent: Agent) -> None:
    """Else the place of an array in the heap decides how long a prompt takes."""
    environment = {**os.environ, "LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}
    done = subprocess.run(
        [str(agent.path)], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    bound = done.stderr.decode("utf-8", "replace")
    if "binding file" not in bound:
        pytest.skip("this system's loader does not say what it binds")
    assert re.search(rf"libggml-cpu\S* \[0\] to {re.escape(str(agent.path))} .*_Znam'", bound)


def test_times_are_the_devices_own_and_a_slow_way_here_is_no_part_of_them(
    remote: Session,
) -> None:
    assert isinstance(remote, Stamped)
    tell = remote._link.tell

    def late(command: str, payload: bytes = b"") -> None:
        time.sleep(0.5)
        tell(command, payload)

    remote._link.tell = late  # type: ignore[method-assign]
    began = time.perf_counter()
    trial = answer(remote, PROMPT, 8)
    seen = time.perf_counter() - began
    assert 0 < trial.ttft_s + sum(trial.gaps_s) < seen - 0.5
    assert len(trial.gaps_s) == 7
    assert remote.load_s > 0


def test_who_stops_listening_in_the_middle_leaves_nothing_to_the_next_answer(
    remote: Session,
) -> None:
    expected = greedy(remote)

    def enough(_token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remote.generate(PROMPT, 24, enough, stop=False)
    assert greedy(remote) == expected
    blocks = remote.logits((PROMPT * 40)[:CONTEXT])
    next(blocks)
    blocks.close()
    assert greedy(remote) == expected


def test_the_device_is_asked_for_memory_load_and_its_mask(remote: Session) -> None:
    gauges = gauges_of(
        Session, settings(list(remote._device.reach.argv), Path(remote._device.reach.model))
    )
    assert gauges is remote._device, "one agent, not two"
    memory = gauges.memory()
    assert memory.peak >= memory.steady > 1 << 20
    mark = gauges.mark()
    greedy(remote, 100)
    assert 0 <= (mark.cores_since() or 0.0) < 1000
    assert gauges.forget(Path("ignored")) is not None
    assert gauges.machine() == {"architecture": "a"}


def test_threads_are_kept_on_the_strongest_cores_and_the_mask_is_read_back(
    agent: Agent, model: Path
) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two processors")
    # A device of one big core and a small one, or so it says.
    unlike = Cores((Kind(1.0, ((cpus[1],),)), Kind(0.3, ((cpus[0],),))), None)
    how = settings([str(agent.path)], model, unlike)
    try:
        device = Device.of(how)
        pid = device.link._child.pid
        with device.pinned(1) as mask:
            Session("", how)
            assert mask == (cpus[1],)
            for task in Path(f"/proc/{pid}/task").iterdir():
                assert os.sched_getaffinity(int(task.name)) == {cpus[1]}
        assert os.sched_getaffinity(pid) == set(cpus[:2])
        # A mask that the system cannot give is no mask.
        assert device._pin([1000]) is None
    finally:
        Device.leave()


def test_the_search_for_the_best_threads_is_the_devices(agent: Agent, model: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    phone = Cores((Kind(1.0, ((cpus[0],),)), Kind(0.3, tuple((cpu,) for cpu in cpus[1:]))), None)
    how = settings([str(agent.path)], model, phone)
    try:
        found = search(
            Silent(),
            session="packager.lab.session:Session",
            artifact="no such file here",
            settings={**how, "threads": None},
            prompt_tokens=16,
        )
    finally:
        Device.leave()
    assert found["candidates"][0]["threads"] == phone.big
    assert found["load_cold"]["cached_share"] is not None


@pytest.mark.parametrize(
    ("ask", "words", "code"),
    [
        (
            lambda s: s.generate([1], CONTEXT, lambda _: None),
            "do not fit the context",
            ExitCode.USAGE,
        ),
        (
            lambda s: s.generate([1 << 30], 2, lambda _: None),
            "no such token: 1073741824",
            ExitCode.USAGE,
        ),
        (lambda s: list(s.logits([1] * (CONTEXT + 1))), "do not fit the context", ExitCode.USAGE),
        (lambda s: s._link.ask("sing"), "no such command", ExitCode.USAGE),
        (
            lambda s: s._link.ask("open 9 f16 1 1 /no/such.gguf"),
            "cannot load the model",
            ExitCode.INPUT,
        ),
        (lambda s: s._link.ask("threads 0 0"), "out of range", ExitCode.USAGE),
    ],
)
def test_what_the_agent_refuses_is_a_sentence_and_the_agent_goes_on(
    remote: Session, ask: Callable[[Session], Any], words: str, code: ExitCode
) -> None:
    with pytest.raises(PackError, match=f"On the device: .*{words}") as caught:
        ask(remote)
    assert caught.value.exit_code == code
    assert remote._link.ask("hello")["protocol"] == 2


@pytest.mark.parametrize(
    ("program", "words", "code"),
    [
        ("kill -ILL $$", "does not know an instruction", ExitCode.RESOURCE),
        ("exit 132", "does not know an instruction", ExitCode.RESOURCE),
        ("kill -KILL $$", "killed on the device", ExitCode.RESOURCE),
        ("exit 137", "killed on the device", ExitCode.RESOURCE),
        ("exit 139", "crashed on the device: a segmentation fault", ExitCode.RESOURCE),
        ("echo noexec >&2; exit 126", "does not run the agent: noexec", ExitCode.RESOURCE),
        (
            "echo cable >&2; exit 255",
            r"connection to the agent ended: cable \(exit code 255",
            ExitCode.SOURCE,
        ),
        ("exit 0", "connection to the agent ended: exit code 0", ExitCode.SOURCE),
        ("echo '<html>'; cat", "does not answer as an agent does", ExitCode.INPUT),
        ("echo '[1]'; cat", "does not answer as an agent does", ExitCode.INPUT),
        ("echo '{\"protocol\": 7}'; cat", "speaks protocol 7", ExitCode.USAGE),
        ("exec yes '[[[[' | tr -d '\\n'", "a line of it does not end", ExitCode.INPUT),
        (
            "head -c 99999 /dev/zero | tr '\\0' '['; echo; cat",
            "does not answer as an agent does",
            ExitCode.INPUT,
        ),
    ],
)
def test_what_is_no_agent_or_has_ended_is_told_apart(
    program: str, words: str, code: ExitCode
) -> None:
    with pytest.raises(PackError, match=words) as caught:
        Link(["sh", "-c", program])
    assert caught.value.exit_code == code
    assert caught.value.hint


def test_what_answers_in_an_agents_place_is_not_believed(tmp_path: Path) -> None:
    """Each row is the answer to one command, after a genuine greeting."""
    told = '{"protocol": 2, "engine": "x"}\n{"mark": {}}\n'
    opened = told + '{"load_s": 1, "vocabulary": 4, "ends": [3], "template": null}\n'
    began = '{"tokens": [1, 2, 3], "at": [1, 2, 3], "began": 0}\n'
    asked: dict[str, tuple[str, Callable[[Session], Any]]] = {
        "a number that is a text": (told + '{"load_s": "soon"}\n', lambda s: None),
        "no ends": (told + '{"load_s": 1, "vocabulary": 4}\n', lambda s: None),
        "a number that no float holds": (told + f'{{"load_s": {"9" * 400}}}\n', lambda s: None),
        "more ids than bytes": (opened + f'{{"ids": {[1] * 99}}}\n', lambda s: s.encode("a")),
        "a text without end": (opened + '{"bytes": 999999999999}\n', lambda s: s.decode([1])),
        "more tokens than asked": (
            opened + began,
            lambda s: s.generate([1], 2, lambda token: None),
        ),
        "lines without end": (
            opened + '{"tokens": [], "at": []}\n' * 99,
            lambda s: s.generate([1], 2, lambda token: None),
        ),
        "logits of no size": (
            opened + '{"rows": -1, "width": -1}\n',
            lambda s: list(s.logits([1])),
        ),
    }
    for case, (said, ask) in asked.items():
        (tmp_path / "said").write_text(said)
        cores = Cores((Kind(1.0, ((0,),)),), None)
        through = Through(transport="local", agent_sha256="0" * 64, agent_for="x")
        words = ("sh", "-c", f"cat {tmp_path / 'said'}; exec >&-; exec cat >/dev/null")
        reach = Reach(words, "/m.gguf", cores, {}, through)
        with pytest.raises(PackError, match="does not answer as an agent does") as caught:
            ask(Session("x", {"lab": reach.to_json(), "context": 8}))
        assert caught.value.exit_code == ExitCode.INPUT, case
        Device.leave()


def test_a_clock_that_jumps_back_on_the_device_gives_no_figure(tmp_path: Path) -> None:
    (tmp_path / "said").write_text(
        '{"protocol": 2, "engine": "x"}\n{"mark": {}}\n'
        '{"load_s": 1, "vocabulary": 4, "ends": [3], "template": null}\n'
        '{"tokens": [1, 2], "at": [9, 5], "began": 1}\n'
    )
    words = ("sh", "-c", f"cat {tmp_path / 'said'}; exec >&-; exec cat >/dev/null")
    through = Through(transport="local", agent_sha256="0" * 64, agent_for="x")
    reach = Reach(words, "/m.gguf", Cores((Kind(1.0, ((0,),)),), None), {}, through)
    try:
        session = Session("x", {"lab": reach.to_json(), "context": 8})
        with pytest.raises(PackError, match="clock of the device ran backwards"):
            session.generate([1], 2, lambda token: None)
    finally:
        Device.leave()


def test_an_agent_that_dies_in_an_answer_ends_it_with_a_sentence(remote: Session) -> None:
    killer = threading.Timer(0.3, remote._link._child.kill)
    killer.start()
    with pytest.raises(PackError, match="killed on the device"):
        while True:
            greedy(remote, 200)
    # Whoever tidies up afterwards hears the same.
    for ask in (remote.close, lambda: remote.use_threads(1), lambda: greedy(remote)):
        with pytest.raises(PackError, match="killed on the device"):
            ask()
    # The fixture's own end: nothing is left to be asked.
    remote.close = lambda: None  # type: ignore[method-assign]


def test_a_silent_device_is_given_up() -> None:
    with pytest.raises(PackError, match="sent nothing for 1 seconds"):
        Link(["sh", "-c", "cat > /dev/null"], deadline_s=1)


def test_the_agent_leaves_when_its_input_ends_in_the_middle_of_an_answer_too(
    agent: Agent, model: Path
) -> None:
    long = f"open 100000 f16 1 1 {model}\ngenerate 99000 0 1\n".encode()
    for said in (b"", b"hello\n", long):
        child = subprocess.Popen(
            [agent.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert child.stdin is not None
        child.stdin.write(said)
        child.stdin.close()
        assert child.wait(60) == 0

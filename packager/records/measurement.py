"""A measurement: what the benchmark saw of one artifact on one machine. docs/manifest.md says what
each field means; packager.records.figures has the label, unit and direction of each."""

from __future__ import annotations

import msgspec

from packager.records.base import Count, Number, Record, Tokens
from packager.records.quality import Quality


class Machine(Record, frozen=True, kw_only=True):
    """The machine that was measured on."""

    processor: str = ""
    architecture: str = ""
    cores: Count | None = None
    memory_bytes: Count | None = None
    system: str = ""


class OnDevice(Record, frozen=True, kw_only=True):
    """Whether that machine is the device of the package, and how that is known."""

    on_device: bool = False
    why: str = ""


class Through(Record, frozen=True, kw_only=True):
    """How a device was measured from another machine: the kind of connection, the program that ran
    there, and the state the device was in. Temperatures in degrees Celsius."""

    transport: str = ""
    agent_sha256: str = ""
    agent_for: str = ""
    engine: str = ""
    """What the engine in the agent says of its kernels."""
    governor: str | None = None
    battery: str | None = None
    screen: str | None = None
    """A phone's, `on` or `off`."""
    temperature_before_c: Number | None = None
    temperature_after_c: Number | None = None


class Energy(Record, frozen=True, kw_only=True):
    """Joules of an answer, and what counted them: RAPL, a battery, NVML."""

    source: str | None = None
    joules_per_token: Number | None = None
    joules_per_prompt: Number | None = None


class Window(Record, frozen=True, kw_only=True):
    """One window of a sustained run."""

    at_s: Number
    decode_tps: Number
    other_cpu_cores: Number | None = None
    cpu_mhz: Number | None = None
    temperature_c: Number | None = None


class Sustained(Record, frozen=True, kw_only=True):
    """Decoding without a pause: `ratio` is the last rate over the first; `throttled` is None where
    other programs were at work, so that nothing can be said."""

    seconds: Number
    first_tps: Number
    last_tps: Number
    ratio: Number
    throttled: bool | None = None
    noisy: bool = False
    temperature_c_max: Number | None = None
    windows: tuple[Window, ...] = ()


class ThreadTrial(Record, frozen=True, kw_only=True):
    """One number of threads that was tried."""

    threads: Count
    prefill_tps: Number | None = None
    token_ms: Number | None = None
    answer_s: Number | None = None
    trials: Count | None = None
    processors: tuple[Count, ...] | None = None


class ThreadSearch(Record, frozen=True, kw_only=True):
    """The search for the fastest number of threads."""

    threads: Count | None = None
    processors: tuple[Count, ...] | None = None
    candidates: tuple[ThreadTrial, ...] = ()
    other_cpu_cores: Number | None = None
    noisy: bool = False


class Measurement(Record, frozen=True, kw_only=True):
    """Rates in tokens per second (`_tps`), times in milliseconds (`_ms`) or seconds (`_s`), sizes
    in bytes, documents per second (`_dps`). None where the machine does not tell, where the task
    has no such figure, or older versions did not measure it."""

    task: str = "generate"
    prompt_tokens: Tokens | None = None
    new_tokens: Tokens | None = None
    repeats: Count | None = None
    ttft_ms: Number | None = None
    ttft_ms_p95: Number | None = None
    ttft_ms_p99: Number | None = None
    prefill_tps: Number | None = None
    prefill_128_tps: Number | None = None
    prefill_512_tps: Number | None = None
    prefill_full_tps: Number | None = None
    decode_tps: Number | None = None
    decode_empty_tps: Number | None = None
    decode_full_tps: Number | None = None
    full_context_tokens: Count | None = None
    documents_128_dps: Number | None = None
    documents_512_dps: Number | None = None
    documents_2048_dps: Number | None = None
    query_ms: Number | None = None
    query_ms_p95: Number | None = None
    image_tokens: Tokens | None = None
    """Those of the picture before the first token of `image_ttft_ms`; `image_prompt_tokens` are
    those of the whole prompt."""
    image_prompt_tokens: Tokens | None = None
    image_ttft_ms: Number | None = None
    image_pair_ttft_ms: Number | None = None
    """To the first token after two such pictures."""
    image_decode_tps: Number | None = None
    image_encode_256_ms: Number | None = None
    image_encode_1024_ms: Number | None = None
    image_encode_4096_ms: Number | None = None
    image_load_s: Number | None = None
    audio_seconds: Count | None = None
    """Length of the sound of the next three figures."""
    audio_encode_ms: Number | None = None
    audio_ttft_ms: Number | None = None
    audio_seconds_per_second: Number | None = None
    audio_load_s: Number | None = None
    word_error_percent: Number | None = None
    """Word error rate over recordings that the user gave: `transcript_words` were said in
    `transcript_seconds`."""
    transcript_words: Count | None = None
    transcript_seconds: Number | None = None
    text_peak_memory_bytes: Count | None = None
    """The peak before a picture or a sound came, where one did; `peak_memory_bytes` holds them."""
    token_ms_median: Number | None = None
    token_ms_p95: Number | None = None
    token_ms_p99: Number | None = None
    token_ms: tuple[tuple[Number, ...], ...] = ()
    """Every time between two tokens, one row per answer."""
    load_s: Number | None = None
    load_cold_s: Number | None = None
    peak_memory_bytes: Count | None = None
    steady_memory_bytes: Count | None = None
    proportional_memory_bytes: Count | None = None
    gpu_memory_bytes: Count | None = None
    energy: Energy | None = None
    sustained: Sustained | None = None
    threads: Count | None = None
    thread_search: ThreadSearch | None = None
    processors: tuple[Count, ...] | None = None
    """Numbers of the processors that the threads were kept on; None where they were not."""
    cpu_mhz: Number | None = None
    machine: Machine | None = None
    measured_at: str | None = None
    runs_on: str = "cpu"
    deterministic: bool | None = None
    spread: Number | None = None
    ttft_spread: Number | None = None
    other_cpu_cores: Number | None = None
    noisy: bool = False
    noisy_because: tuple[str, ...] = ()
    attempts: dict[str, Count] = msgspec.field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    place: OnDevice | None = None
    rung: str | None = None
    """How the engine was started, see packager/engine_check; None before engines were tried."""
    through: Through | None = None
    """None where the machine that measured ran the model itself."""
    quality: Quality | None = None
    """What the artifact lost as it was computed there, where that was asked for."""

    @property
    def on_device(self) -> bool:
        """Whether it was taken on the device; older packages do not say, and took theirs for it."""
        return self.place is None or self.place.on_device

    @property
    def memory_bytes(self) -> int | None:
        """The memory that decides whether it fits: the GPU's own where there is one."""
        return self.gpu_memory_bytes or self.peak_memory_bytes

    @property
    def documents_per_second(self) -> float | None:
        """Documents of the workload's length: handed over together where that was timed, else one
        at a time; None where text is given."""
        if self.task == "generate":
            return None
        timed = {
            128: self.documents_128_dps,
            512: self.documents_512_dps,
            2048: self.documents_2048_dps,
        }
        together = timed.get(self.prompt_tokens or 0)
        if together is not None or not self.ttft_ms:
            return together
        return 1000 / self.ttft_ms

    @property
    def first_token_ms(self) -> float | None:
        """The time that decides whether it is quick enough: behind a picture or a sound where it
        takes such."""
        given = (self.image_ttft_ms, self.audio_ttft_ms, self.ttft_ms)
        return next((value for value in given if value is not None), None)

    @property
    def noise(self) -> str:
        """Why it is noisy, as the end of a sentence; empty where it is clean."""
        if not self.noisy:
            return ""
        because = "; ".join(
            self.noisy_because or ("other programs used the processor, or the results varied",)
        )
        tries = max(self.attempts.values(), default=1)
        return f"noisy ({because}{f'; the best of {tries} attempts' if tries > 1 else ''})"

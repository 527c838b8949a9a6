"""Work that benchmarks do in a child process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from packager.measure.benchmark import prompt_ids
from packager.measure.trials import answer
from packager.process import resolve
from packager.runtime import Report
from packager.session import Session


def fill_context(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    prompt_tokens: int,
    new_tokens: int,
) -> dict[str, Any]:
    """Load a model and answer one prompt with `new_tokens` tokens; the caller reads the peak memory
    of this process."""
    model: Session = resolve(session)(artifact, settings)
    try:
        reply = model.generate(
            prompt_ids(model, prompt_tokens, 1), new_tokens, lambda token: None, stop=False
        )
    finally:
        model.close()
    return {"answered": len(reply)}


def log_probabilities(report: Report, *, artifact: str, tokens: int, out: str) -> dict[str, Any]:
    """What an OpenVINO artifact expects after each of `tokens` random tokens, computed in float32;
    an array (tokens, vocabulary)."""
    # Late: they load the engine.
    import numpy as np
    import openvino

    model = openvino.Core().read_model(f"{artifact}/openvino_model.xml")
    exact = {
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }
    compiled = openvino.Core().compile_model(model, "CPU", exact)
    vocabulary = model.output(0).get_partial_shape()[-1].get_length()
    ids = np.random.default_rng(0).integers(0, vocabulary, tokens)[None]
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(tokens)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    logits = compiled(inputs)[0][0].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    np.save(out, logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))
    return {}


def openvino_in_turns(
    report: Report,
    *,
    artifact: str,
    kv: str,
    threads: int,
    context: int,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
) -> dict[str, Any]:
    """One loaded pipeline answers fresh prompts, timed by our harness and, without our streamer, by
    GenAI's own perf_metrics in turns.

    Returns `pairs`, one per round: `ours` and `peer`, each with `prefill_tps` and `decode_tps`; who
    goes first alternates.
    """
    # Here, since only this job needs the engine.
    import numpy as np
    import openvino
    import openvino_genai

    from packager.measure.trials import answer

    session: Session = resolve("targets.openvino.session:OpenVinoSession")(
        artifact, {"context": context, "kv": kv, "threads": threads}
    )
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = new_tokens
    config.do_sample = False
    config.ignore_eos = True
    seeds = iter(range(2 * rounds + 2))

    def ours() -> dict[str, float]:
        trial = answer(session, prompt_ids(session, prompt_tokens, next(seeds)), new_tokens)
        return {
            "prefill_tps": prompt_tokens / trial.ttft_s,
            "decode_tps": len(trial.gaps_s) / sum(trial.gaps_s),
        }

    def peer() -> dict[str, float]:
        ids = openvino.Tensor(
            np.asarray([prompt_ids(session, prompt_tokens, next(seeds))], dtype=np.int64)
        )
        metrics = session._pipeline.generate(ids, config).perf_metrics  # type: ignore[attr-defined]
        return {
            "prefill_tps": 1000 * prompt_tokens / metrics.get_ttft().mean,
            "decode_tps": 1000 / metrics.get_tpot().mean,
        }

    try:
        # The first answers of both warm it up.
        ours(), peer()
        pairs = []
        for number in range(rounds):
            first, second = (ours, peer) if number % 2 == 0 else (peer, ours)
            seen = {first.__name__: first(), second.__name__: second()}
            pairs.append(seen)
            report.progress(number + 1, rounds, "rounds")
    finally:
        session.close()
    return {"pairs": pairs}


def warm_start(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    prefix_tokens: int,
    question_tokens: int,
    new_tokens: int,
    rounds: int,
    folder: str,
) -> dict[str, Any]:
    """The first token after a prefix and a question, `cold_ms` and `warm_ms` in turns; whether all
    answers are the `same`, and the `state_bytes`."""
    model: Any = resolve(session)(artifact, settings)
    prefix = prompt_ids(model, prefix_tokens, 1)
    prompt = [*prefix, *prompt_ids(model, question_tokens, 2)]
    places = Path(folder)
    cold: list[float] = []
    warm: list[float] = []
    answers: list[list[int]] = []
    try:
        for _ in range(rounds):
            # What is left of an earlier run would be no cold start.
            shutil.rmtree(places, ignore_errors=True)
            model.keep_prefix([], places / "none.state")
            for times in (cold, warm, warm):
                trial = answer(model, prompt, new_tokens)
                if times is cold:
                    # A plain answer, then one that leaves the state, which is not counted.
                    model.keep_prefix(prefix, places / "prefix.state")
                    answers.append(list(answer(model, prompt, new_tokens).tokens))
                elif not model.prefix_note.startswith("Warm"):
                    raise RuntimeError(model.prefix_note)
                times.append(1000 * trial.ttft_s)
                answers.append(list(trial.tokens))
            state_bytes = sum(path.stat().st_size for path in places.iterdir())
            shutil.rmtree(places)
    finally:
        model.close()
    return {
        "cold_ms": cold,
        "warm_ms": warm,
        "same": all(tokens == answers[0] for tokens in answers),
        "state_bytes": state_bytes,
    }


def same_answers(
    report: Report, *, session: str, artifact: str, settings: dict[str, Any], asked: dict[str, Any]
) -> dict[str, Any]:
    """Whether an answer is the `same` as plain decoding with what the engine drafts itself, and
    with drafts that are right, half right and wrong; and where answers part, see
    packager.measure.parting."""
    from packager.measure.parting import parting
    from packager.measure.speculation import proposer_of

    model: Any = resolve(session)(artifact, {**settings, "speculation": asked})
    try:
        prompt = prompt_ids(model, 64, 3)
        plain = model.generate(prompt, 40, lambda token: None, stop=False)
        told = [*prompt, *plain]
        proposer = proposer_of(model, asked)

        def partly(right: int) -> Any:
            def draft(tokens: Any) -> list[int]:
                following = told[len(tokens) : len(tokens) + 4]
                return [*following[:right], *(token ^ 1 for token in following[right:])]

            return draft

        drafts = [lambda tokens: proposer(tokens, 4), *(partly(right) for right in (4, 2, 0))]
        answers = [model.speculate(prompt, 40, draft, stop=False).tokens for draft in drafts]
        parted = [parting(model, prompt, plain, answer) for answer in answers]
    finally:
        model.close()
    places = [place for place in parted if place is not None]
    same = all(place.tie for place in places)
    return {"same": same, "parted": [place.as_dict() for place in places]}


def fitted_heads(report: Report, *, folder: str, shape: dict[str, Any]) -> dict[str, Any]:
    """A small hybrid with fitted heads: `acceptance` of what they draft, and whether the answers
    are the `same`."""
    # Here: it brings the engine and numpy.
    from packager.checkpoint.control_tokens import control_tokens
    from packager.measure.parting import parting
    from packager.measure.speculation import way
    from packager.shape import Shape
    from packager.sources.dummy import write_checkpoint
    from targets.gguf.convert import convert
    from targets.llama_cpp.session import Session as LlamaSession
    from training.heads import fit, sharpen

    place = Path(folder)
    source = place / "checkpoint"
    shutil.rmtree(place, ignore_errors=True)
    source.mkdir(parents=True)
    known, name = Shape.from_dict(shape), "Qwen/Qwen3.5-0.8B"
    control = control_tokens(name, known.model_type)
    write_checkpoint(report, source, repo_id=name, shape=known, control=control, dtype="F32")
    sharpen(source)
    convert(source, place / "plain.gguf", "BF16")
    fit(source, place / "plain.gguf", [[n, n + 300, n + 600] for n in range(24)], 32)
    convert(source, place / "heads.gguf", "BF16", heads=True)
    asked = way("mtp")
    settings: Any = {"context": 128, "kv": "f16", "threads": 1, "speculation": asked}
    model = LlamaSession(str(place / "heads.gguf"), settings)
    proposer = model.proposer(asked)
    same, drafted, accepted = True, 0, 0
    places = []
    for first in (700, 720, 740):
        prompt = [first, first + 100, first + 200]
        plain = model.generate(prompt, 40, lambda token: None, stop=False)
        answer = model.speculate(prompt, 40, lambda tokens: proposer(tokens, 3), stop=False)
        place = parting(model, prompt, plain, answer.tokens)
        same = same and (place is None or place.tie)
        places += [place.as_dict()] if place else []
        drafted, accepted = drafted + answer.drafted, accepted + answer.accepted
    model.close()
    return {"acceptance": accepted / drafted, "same": same, "parted": places}


def openvino_as_it_comes(
    report: Report, *, artifact: str, prompt_tokens: int, new_tokens: int, repeats: int
) -> dict[str, Any]:
    """What openvino_genai itself says of its pipeline with nothing set, over fresh prompts."""
    # Here, since only this job needs the engine.
    import numpy as np
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(artifact, "CPU")
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.do_sample, config.ignore_eos = new_tokens, False, True
    rates = []
    for seed in range(repeats + 1):
        ids = np.random.default_rng(seed).integers(5, 1000, (1, prompt_tokens), np.int64)
        seen = pipeline.generate(openvino.Tensor(ids), config).perf_metrics
        rates.append(1000 / seen.get_tpot().mean)
    # The first answer warms it up.
    return {"decode_tps": sum(rates[1:]) / repeats}


def onnx_as_it_comes(
    report: Report, *, artifact: str, prompt_tokens: int, new_tokens: int, repeats: int
) -> dict[str, Any]:
    """The loop of onnxruntime_genai's own examples with nothing set, over fresh prompts."""
    # Here, since only this job needs the engine.
    import time

    import numpy as np
    import onnxruntime_genai as og

    model = og.Model(artifact)
    rates = []
    for seed in range(repeats + 1):
        params = og.GeneratorParams(model)
        most = prompt_tokens + new_tokens
        params.set_search_options(max_length=most, min_length=most, do_sample=False)
        generator = og.Generator(model, params)
        ids = np.random.default_rng(seed).integers(5, 1000, prompt_tokens, np.int32)
        generator.append_tokens(ids)
        generator.generate_next_token()
        began, count = time.perf_counter(), 0
        while count < new_tokens - 1 and not generator.is_done():
            generator.generate_next_token()
            count += 1
        rates.append(count / (time.perf_counter() - began))
        del generator
    return {"decode_tps": sum(rates[1:]) / repeats}


def logged_after(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    tokens: int,
    out: str | None = None,
    truth: str | None = None,
) -> dict[str, Any]:
    """What an artifact expects after each of so many random tokens: logarithms of probabilities
    (tokens, vocabulary), kept in the file `out`; or `mean`, the nats by which they differ from
    those in the file `truth`."""
    # Here: most jobs need no numpy.
    import numpy as np

    ids = [int(token) for token in np.random.default_rng(7).integers(5, 1000, tokens)]
    model: Session = resolve(session)(artifact, settings)
    try:
        rows = np.concatenate([np.array(block, np.float64) for block in model.logits(ids)])
    finally:
        model.close()
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    if out is not None:
        np.save(out, rows.astype(np.float32))
    if truth is None:
        return {}
    exact = np.load(truth).astype(np.float64)
    # Engines pad the vocabulary each to their own width.
    width = min(exact.shape[1], rows.shape[1])
    exact, rows = exact[:, :width], rows[:, :width]
    return {"mean": float((np.exp(exact) * (exact - rows)).sum(axis=1).mean())}


def decode_rates(
    report: Report,
    *,
    session: str,
    artifact: str,
    settings: dict[str, Any],
    prompt_tokens: int,
    new_tokens: int,
    repeats: int,
) -> dict[str, Any]:
    """Tokens per second after fresh prompts, `decode_tps` as the median of the answers; the first
    answer, a short one, warms up and does not count. `threads` where the session chose them, and
    the peak memory of this process."""
    import statistics

    from packager.process import peak_resident_bytes, resident_bytes

    model: Session = resolve(session)(artifact, settings)
    try:
        answer(model, prompt_ids(model, 16, 0), 8)
        trials = [
            answer(model, prompt_ids(model, prompt_tokens, seed + 1), new_tokens)
            for seed in range(repeats)
        ]
        peak = max(peak_resident_bytes(), resident_bytes())
    finally:
        model.close()
    rates = [len(trial.gaps_s) / sum(trial.gaps_s) for trial in trials]
    return {
        "decode_tps": statistics.median(rates),
        "ttft_ms": 1000 * statistics.median(trial.ttft_s for trial in trials),
        "threads": getattr(model, "threads", None),
        "peak_memory_bytes": peak,
    }

"""Work that benchmarks do in a child process."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from packager.measure.benchmark import prompt_ids
from packager.measure.trials import answer, words_of
from packager.process import resolve
from packager.runtime import Report
from packager.session import RetrievalSession, Session


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


def longest_text(
    report: Report, *, session: str, artifact: str, settings: dict[str, Any], tokens: int
) -> dict[str, Any]:
    """Load an embedder or a reranker and compute short texts together and one of `tokens` alone;
    the caller reads the peak memory of this process."""
    model: RetrievalSession = resolve(session)(artifact, settings)
    compute = model.embed if settings["task"] == "embed" else model.score
    short = min(128, tokens)
    try:
        compute([words_of(model.plain, short, seed) for seed in range(4)])
        compute([words_of(model.plain, tokens, 4)])
    finally:
        model.close()
    return {"tokens": tokens}


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


def drafted(
    report: Report,
    *,
    session: str,
    artifact: str,
    draft: str,
    settings: dict[str, Any],
    texts: dict[str, str],
) -> dict[str, Any]:
    """Answers with another model's drafts: `acceptance` by kind and of all, and whether all answers
    are the `same`. The draft reads its prompt anew in every step, so that nothing is timed."""
    make: Any = resolve(session)
    model, helper = make(artifact, settings), make(draft, settings)
    kinds: dict[str, float] = {}
    same, said, right = True, 0, 0
    try:
        for name, text in texts.items():
            prompt = model.encode(text)[:128]
            plain = model.generate(prompt, 32, lambda token: None, stop=False)
            seen = model.speculate(
                prompt,
                32,
                lambda tokens: helper.generate(tokens, 4, lambda token: None, stop=False),
                stop=False,
            )
            same = same and seen.tokens == plain
            said, right = said + seen.drafted, right + seen.accepted
            kinds[name] = seen.accepted / seen.drafted
    finally:
        model.close()
        helper.close()
    return {"kinds": kinds, "acceptance": right / said, "same": same}

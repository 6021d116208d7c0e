# SPDX-License-Identifier: Apache-2.0
"""Whole models by other libraries, with random weights.

What a timed call is, on the device's stream and then waited for (timing.py):

prefill: one forward over a prompt of seqlen tokens, that leaves the state for
    decoding and gives the logits of the last position.
decode: one forward of one token a sequence and the choice of the likeliest as
    the next, from a state of seqlen tokens; eager in Transformers, whose cache
    is made anew with each token, and mamba_ssm's own CUDA graph in mamba_ssm.

A model is loaded once for its rows, and freed before the next.
"""

# mypy: disable-error-code="import-not-found,import-untyped,no-any-return,no-untyped-call"
from __future__ import annotations

import dataclasses
import gc
import importlib
import importlib.util
import inspect
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from peers import rows, zoo
from peers.filling import DTYPES
from peers.names import RowName
from peers.providers import SkipError
from peers.timing import Call, ModelTimer, replay_seconds
from peers.zoo import Json

SEED = 1


@dataclasses.dataclass(frozen=True)
class Decode:
    """Decoding from a context."""

    step: Call  # one token a sequence
    rewind: Call  # back to the context
    replay: Call | None = None  # the step's own CUDA graph alone


class Model(Protocol):
    """A loaded model."""

    module: torch.nn.Module
    remark: str  # on how it runs

    def prefill(self, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
        """A call that gives the logits of the last position of (batch, seqlen) tokens."""
        ...

    def decode(self, tokens: torch.Tensor) -> Decode:
        """Steps after a state of as many tokens."""
        ...


class TransformersModel:
    """A causal language model of Transformers: eager, scaled_dot_product_attention."""

    remark = "eager"

    def __init__(self, config: Json, dtype: torch.dtype, device: str) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import transformers

        transformers.logging.set_verbosity_error()
        try:
            kind, fields = zoo.for_transformers(config)
        except zoo.UnknownModelError as error:
            raise SkipError(str(error)) from error
        if kind not in transformers.CONFIG_MAPPING:
            raise SkipError(f"Transformers {transformers.__version__} has no model {kind}")
        settings = transformers.AutoConfig.for_model(kind, **fields)

        def make(attention: str) -> Any:
            torch.manual_seed(SEED)
            with torch.device(device):
                return transformers.AutoModelForCausalLM.from_config(
                    settings, dtype=dtype, attn_implementation=attention
                )

        try:
            self.module = make("sdpa")
        except ValueError as error:
            if "does not support an attention implementation" not in str(error):
                raise
            self.module = make("eager")
            if kind not in ("mamba", "mamba2"):
                self.remark = "eager, without scaled_dot_product_attention"
        self.module.eval()
        if device == "cuda":
            _capture_what_runs(transformers.utils.import_utils)
            self.remark += _missing_kernels(self.module)
        self._cache = "cache_params" if kind in ("mamba", "mamba2") else "past_key_values"

    def prefill(self, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
        """A call that makes its own cache."""
        return lambda: self._forward(tokens).logits

    def decode(self, tokens: torch.Tensor) -> Decode:
        """Steps after a prefill, which fills the cache."""
        after = self._forward(tokens)
        cache = getattr(after, self._cache)
        token = after.logits[:, -1].argmax(-1, keepdim=True)
        # Keys and values are new tensors after each step; the states of SSMs are
        # updated in place, and a step takes as long from any.
        kept = [
            (layer, field, getattr(layer, field))
            for layer in cache.layers
            for field in ("keys", "values", "cumulative_length")
            if hasattr(layer, field)
        ]

        def step() -> torch.Tensor:
            nonlocal token
            logits = self._forward(token, **{self._cache: cache}).logits
            token = logits[:, -1].argmax(-1, keepdim=True)
            return token

        def rewind() -> None:
            for layer, field, value in kept:
                setattr(layer, field, value)

        return Decode(step, rewind)

    def _forward(self, tokens: torch.Tensor, **cache: Any) -> Any:
        return self.module(tokens, use_cache=True, logits_to_keep=1, **cache)


class MambaSsmModel:
    """MambaLMHeadModel, as its generate(cg=True) runs it."""

    remark = "eager"

    def __init__(self, config: Json, dtype: torch.dtype, device: str) -> None:
        if not zoo.is_mamba_ssm(config):
            raise SkipError("the configuration is not in mamba_ssm's form")
        from mamba_ssm.models.config_mamba import MambaConfig
        from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel
        from mamba_ssm.utils import generation

        self._generation = generation
        torch.manual_seed(SEED)
        self.module = MambaLMHeadModel(MambaConfig(**config), device=device, dtype=dtype).eval()
        self._dtype = dtype

    def prefill(self, tokens: torch.Tensor) -> Callable[[], torch.Tensor]:
        """A call that writes its states into memory allocated before."""
        batch, seqlen = tokens.shape
        state = self._generation.InferenceParams(max_seqlen=seqlen + 1, max_batch_size=batch)
        state.key_value_memory_dict = self.module.allocate_inference_cache(
            batch, seqlen + 1, self._dtype
        )
        return lambda: self.module(tokens, inference_params=state, num_last_tokens=1).logits

    def decode(self, tokens: torch.Tensor) -> Decode:
        """Steps as generate has them with its cg=True, after a random state."""
        batch, context = tokens.shape
        cache = self._generation.update_graph_cache(
            self.module, None, batch, context, context + zoo.MOST_DECODED
        )
        for states in cache.inference_params.key_value_memory_dict.values():
            for state in states:
                state.normal_(0.0, 0.1)
        position = context
        token = tokens[:, -1:]

        def step() -> torch.Tensor:
            nonlocal position, token
            positions = torch.full((batch, 1), position, dtype=torch.long, device=token.device)
            logits = cache.run(token, positions, position).squeeze(dim=1)
            position += 1
            token = logits.argmax(dim=-1).unsqueeze(1)
            return token

        def rewind() -> None:
            nonlocal position
            position = context

        # The graph is a local of the function that copies its inputs and replays it.
        run = cache.callables.get((batch, 1))
        graph = inspect.getclosurevars(run).nonlocals.get("graph") if run is not None else None
        return Decode(step, rewind, getattr(graph, "replay", None))


def _capture_what_runs(transformers_utils: Any) -> None:
    """Makes a captured forward the eager one.

    While a stream is captured, Transformers writes out the causal mask, with
    which SDPA has slower kernels, lest the graph be replayed with other shapes.
    """
    if hasattr(transformers_utils, "is_cuda_stream_capturing"):
        transformers_utils.is_cuda_stream_capturing = lambda: False


def _convolves(module: torch.nn.Module) -> bool:
    return any(isinstance(part, torch.nn.Conv1d) for part in module.modules())


def _missing_kernels(module: torch.nn.Module) -> str:
    """What an SSM of Transformers falls back for, to PyTorch code many times slower."""
    missing = [
        package
        for package in ("mamba_ssm", "causal_conv1d")
        if _convolves(module) and importlib.util.find_spec(package) is None
    ]
    return f", without the kernels of {' and '.join(missing)}" if missing else ""


@dataclasses.dataclass(frozen=True)
class ModelPeer:
    """One library's way to run models."""

    provider: str
    devices: frozenset[str]
    load: Callable[[Json, torch.dtype, str], Model]

    def runs_unasked(self, name: RowName, config: Json) -> bool:
        """Whether the row is worth its time where --providers does not name the peer."""
        if self.provider == "transformers":
            return name.device == "cpu" or not zoo.is_mamba_ssm(config)
        return zoo.is_mamba_ssm(config)


MODEL_PEERS = [
    ModelPeer("transformers", frozenset({"cpu", "cuda"}), TransformersModel),
    ModelPeer("mamba_ssm", frozenset({"cuda"}), MambaSsmModel),
]


class ModelRunner:
    """Times models' rows, with one model in memory at a time."""

    def __init__(self, device: str, timer: ModelTimer) -> None:
        self._device = device
        self._timer = timer
        self._key: tuple[str, str, str] | None = None
        self._model: Model | None = None
        self._load_seconds = 0.0
        self._before = 0  # bytes allocated without the model

    def close(self) -> None:
        """Frees the model."""
        self._model, self._key = None, None
        self.free()

    def free(self) -> None:
        """Frees what a row has left."""
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def run(self, name: RowName, peer: ModelPeer, config: Json) -> Json:
        """The row's counters; raises as the library does, SkipError where it cannot."""
        reason = zoo.refusal(name, config)
        if reason:
            raise SkipError(reason)
        model = self._load(name, peer, config)
        generator = torch.Generator(self._device).manual_seed(SEED)
        tokens = torch.randint(
            0,
            zoo.vocabulary(config),
            (name.batch, name.seqlen),
            device=self._device,
            generator=generator,
        )
        with torch.inference_mode():
            start = time.perf_counter()
            run = self._prefill if name.op == "prefill" else self._decode
            row = run(model, tokens, rows.tokens_of(name), start)
        row["parameters"] = sum(p.numel() for p in model.module.parameters())
        return row

    def _prefill(self, model: Model, tokens: torch.Tensor, count: int, start: float) -> Json:
        call = model.prefill(tokens)
        finite = bool(torch.isfinite(call()).all())  # compiles, tunes and waits
        plan = time.perf_counter() - start
        timing = self._timer.time(call)
        timing.graph, why_not = self._timer.replayed(call, timing.median)
        remarks = [model.remark, "" if finite else "the logits are not finite", why_not]
        return self._row(timing, count, plan, remarks)

    def _decode(self, model: Model, tokens: torch.Tensor, count: int, start: float) -> Json:
        if self._device == "cuda":
            _check_update(model.module)
        decode = model.decode(tokens)
        for _ in range(3):
            decode.step()
        decode.rewind()
        if self._device == "cuda":
            torch.cuda.synchronize()
        plan = time.perf_counter() - start
        timing = self._timer.time(decode.step, decode.rewind)
        how, why_not = model.remark, ""
        if decode.replay is not None:
            how = "its own CUDA graph"
            timing.graph = replay_seconds(decode.replay)
        else:
            timing.graph, why_not = self._timer.replayed(decode.step, timing.median)
        return self._row(timing, count, plan, [how, timing.remark, why_not])

    def _row(self, timing: Any, tokens: int, plan: float, remarks: list[str]) -> Json:
        timing.remark = "; ".join(filter(None, remarks))
        if timing.peak is not None:
            timing.peak -= self._before
        plan += self._load_seconds
        self._load_seconds = 0.0  # the next row has its model
        return rows.counters(timing, tokens) | {"plan_seconds": plan}

    def _load(self, name: RowName, peer: ModelPeer, config: Json) -> Model:
        key = (peer.provider, name.shape, name.dtype)
        if self._key != key or self._model is None:
            self.close()
            if self._device == "cuda":
                self._before = torch.cuda.memory_allocated()
            start = time.perf_counter()
            self._model = peer.load(config, DTYPES[name.dtype], self._device)
            self._load_seconds = time.perf_counter() - start
            self._key = key
        return self._model


def _check_update(module: torch.nn.Module) -> None:
    """SkipError for convolutions by a causal_conv1d without its kernel for one token."""
    if _convolves(module) and importlib.util.find_spec("causal_conv1d_cuda") is not None:
        kernels = importlib.import_module("causal_conv1d_cuda")
        if not hasattr(kernels, "causal_conv1d_update"):
            raise SkipError("causal_conv1d was built without causal_conv1d_update")

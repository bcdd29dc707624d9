"""What is done about each operation of CUDA's torch, so that its values are there.

Every kernel that torch has registered for a card is replaced by one that first lets the replaced
one run and then computes on the CPU. Replacing kernels, and not a dispatch mode, because kernels
belong to the process and not to a thread, come after autograd and after operations made of others
were taken apart (in inference mode as outside it), and views cost nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import cache, lru_cache, reduce
from typing import Any

import torch
from torch._native.registry import deregister_op_overrides

from hybridlab.simulation import attention
from hybridlab.simulation.draws import as_default, drawing
from hybridlab.simulation.host_memory import (
    CPU,
    alias,
    is_known,
    is_real_number,
    sent,
    zeros_like,
)


class Kind(Enum):
    """How an operation gets its values. The value of each kind is the reason for it."""

    COMPUTED = "the CUDA operation runs and allocates, the CPU computes into what it returned"
    UNTOUCHED = "a view, an allocation or a question about a tensor: there are no values to compute"
    COPIED = "as computed, but between two memories, and in `sizes` not at all if both are large"
    SHAPED = "needs a library or a compiler that is not there: allocated after torch's meta kernel"
    READ_BACK = "its C++ reads what its kernel wrote before it returns: computed on the CPU alone"


def _names(lines: str) -> frozenset[str]:
    return frozenset(lines.split())


#: Kinds by name of the operation; what is not named here is `COMPUTED`.
KINDS: dict[Kind, frozenset[str]] = {
    Kind.UNTOUCHED: _names("""
        empty empty_strided empty_like _efficientzerotensor as_strided view _reshape_alias unfold
        view_as_real view_as_complex set_ resize_ is_set_to record_stream _fused_sdp_choice
        _use_cudnn_ctc_loss _use_miopen_ctc_loss _cudnn_rnn_flatten_weight
        _cudnn_init_dropout_state _nested_view_from_buffer
        _scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention
        _scaled_dot_product_cudnn_attention
        """),
    Kind.COPIED: frozenset({"copy_"}),
    # cuDNN (the workspace of a convolution is therefore never allocated), cuFFT, cuSOLVER,
    # NVRTC, and last an operation that hands a number on to another kernel as a tensor of the
    # card, in which form Python cannot receive one
    Kind.SHAPED: _names("""
        convolution convolution_backward
        _fft_c2c _fft_c2r _fft_r2c
        cholesky cholesky_inverse _cholesky_solve_helper ormqr
        i0 digamma lgamma polygamma erfc erfinv exp2 sinc prod gcd lcm
        pow.Scalar pow.Scalar_out
        """),
    Kind.READ_BACK: _names("""
        _local_scalar_dense nonzero masked_select equal _unique _unique2 unique_dim
        unique_consecutive unique_dim_consecutive _to_sparse mode linalg_lstsq geqrf
        """),
}
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}

#: Linear algebra calls cuSOLVER; torch compiles special functions when they are first called.
_SHAPED_PREFIXES = ("linalg_", "_linalg_", "special_")

#: Sparse tensors: questions and the pieces that such a tensor is made of; the rest is read back.
_SPARSE_UNTOUCHED = _names("""
    _coalesced_ ccol_indices col_indices crow_indices row_indices _dimI _dimV _indices _nnz
    _sparse_coo_tensor_with_dims clone copy_ resize_
    _sparse_coo_tensor_with_dims_and_tensors _values copy_sparse_to_sparse_ dense_dim
    empty empty_like indices is_coalesced permute resize_as_sparse_ sparse_dim
    sparse_resize_ sparse_resize_and_clear_ unsqueeze values view_as_complex view_as_real zero_
    """)

#: Registered for every backend at once, so not listed among the card's own kernels.
_OF_ALL_BACKENDS = ("aten::copy_", "aten::conj_physical_", "aten::convolution")


#: Operations of the card that the CPU has in another form.
_ON_CPU: dict[str, Callable[..., Any]] = {
    "_efficient_attention_forward": attention.efficient,
    "_flash_attention_forward": attention.flash,
    "_cudnn_attention_forward": attention.cudnn,
}

#: In place, but without a look at what was there.
_OVERWRITING = frozenset({"fill_", "zero_", "normal_", "uniform_", "exponential_", "random_"})

#: Decisions that zeros do not make: as many different indices as are asked for, from the first on.
_DISTINCT = frozenset({"multinomial", "topk"})


def register(*, every_value: bool) -> None:
    """Put a step of ours around every operation of the card; for `every_value` see `values`."""
    library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():  # torch warns that kernels are replaced, which is what we do
        warnings.filterwarnings("ignore", message=".*[Oo]verriding a previously registered kernel")
        for name, key, step in steps(every_value=every_value):
            library.impl(name, step, key, with_keyset=True)  # type: ignore[no-untyped-call]
    _libraries.append(library)


@cache
def steps(*, every_value: bool) -> tuple[tuple[str, str, Operation], ...]:
    """The steps by the operation's name and the dispatch key of the kernel that each replaces."""
    # torch's own kernels in Python are compiled for the card when they are first called
    deregister_op_overrides(disable_dispatch_keys="CUDA")
    found = []
    for key in ("CUDA", "SparseCUDA", "SparseCsrCUDA"):
        listed = torch._C._dispatch_get_registrations_for_dispatch_key(key)
        names = {name for name in listed if name.startswith("aten::")}
        for name in sorted(names.union(_OF_ALL_BACKENDS if key == "CUDA" else ())):
            kind = _kind(name, key)
            is_checked = every_value or not name.startswith("aten::_assert_async")
            if kind is not Kind.UNTOUCHED and is_checked:  # zeros pass no check
                found.append((name, key, Operation(name, key, kind, every_value=every_value)))
    return tuple(found)


_libraries: list[torch.library.Library] = []  # what a library registered ends with it


def _kind(name: str, key: str) -> Kind:
    base = name.removeprefix("aten::").partition(".")[0]
    if key != "CUDA":
        return Kind.UNTOUCHED if base in _SPARSE_UNTOUCHED else Kind.READ_BACK
    for known in (name.removeprefix("aten::"), base, base.removesuffix("_")):
        if known in _KIND_OF:
            return _KIND_OF[known]
    return Kind.SHAPED if base.startswith(_SHAPED_PREFIXES) else Kind.COMPUTED


def _overload(name: str) -> torch._ops.OpOverload:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    found = getattr(getattr(torch.ops.aten, packet), overload or "default")
    assert isinstance(found, torch._ops.OpOverload)
    return found


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among arguments or results, which are at most one list deep."""
    for value in values if isinstance(values, list | tuple) else (values,):
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (x for x in value if isinstance(x, torch.Tensor))


def _each(convert: Callable[[torch.Tensor], torch.Tensor], value: Any) -> Any:
    """An argument or a result with its tensors converted."""
    if isinstance(value, torch.Tensor):
        return convert(value)
    if isinstance(value, list | tuple):
        return type(value)(_each(convert, x) for x in value)
    return value


def _host(tensor: torch.Tensor) -> torch.Tensor:
    return alias(tensor) if tensor.is_cuda else tensor


def _host_or_zeros(tensor: torch.Tensor) -> torch.Tensor:
    return _host(tensor) if is_known(tensor) else zeros_like(tensor)


def _one_zero(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros((), dtype=tensor.dtype, device=CPU)


def _all(tensor: torch.Tensor, dim: int, keepdim: bool = False) -> torch.Tensor:
    """`aten::all.dim`, which is known from the first of each where that is False: of the scores of
    long audio, none of which is infinite, in a hundredth of the time."""
    if tensor.dtype is torch.bool and tensor.dim() and tensor.size(dim):
        first = tensor.select(dim, 0)
        if not first.any():
            none = torch.zeros_like(first)
            return none.unsqueeze(dim) if keepdim else none
    return torch.all(tensor, dim, keepdim)


def _meta(tensor: torch.Tensor) -> torch.Tensor:
    like = torch.empty_strided(
        tensor.size(), tensor.stride(), dtype=tensor.dtype, device=torch.device("meta")
    )
    return like.conj() if tensor.is_conj() else like


class Operation:
    """One operation of the card with its values: what torch calls in the place of its kernel."""

    def __init__(self, name: str, key: str, kind: Kind, *, every_value: bool) -> None:
        overload = _overload(name)
        schema = overload._schema
        self.name = name.removeprefix("aten::")
        self.kind = kind
        self.kernel = torch.library.get_kernel(overload, key)
        self.on_meta = overload._op
        own: Callable[..., Any] = _all if self.name == "all.dim" else overload._op
        self.on_cpu = _ON_CPU.get(self.name, own)
        self.fill = self._fill_all if every_value else self._fill_known
        self.for_host = _host if every_value else _host_or_zeros
        #: Its integers are a state of the card's generator and decide nothing.
        self.is_fused = self.name in _ON_CPU
        #: Zeros are no probabilities, so that even a small tensor of them cannot be drawn from.
        self.draws_a_decision = self.name.startswith("multinomial")
        self.is_pointwise = torch.Tag.pointwise in overload.tags
        self.distinct = not every_value and self.name.partition(".")[0] in _DISTINCT
        places = [(i, x.name, x) for i, x in enumerate(schema.arguments)]
        self.tensor_places = [(i, name) for i, name, x in places if "Tensor" in str(x.type)]
        self.written_places = [
            (i, name) for i, name, x in places if x.alias_info is not None and x.alias_info.is_write
        ]
        self.read_places = [
            (i, name)
            for i, name in self.tensor_places
            if (i, name) not in self.written_places or not schema.arguments[i].kwarg_only
        ]
        #: Arguments that are written, perhaps after they were read: the CUDA operation may copy
        #: garbage there, as its kernels do not run, or be made of operations that were computed.
        self.endangered_places = (
            self.written_places
            if kind is Kind.COMPUTED and schema.name.removeprefix("aten::") not in _OVERWRITING
            else []
        )
        #: Results that are new tensors, and not arguments that were written.
        self.fresh = [i for i, result in enumerate(schema.returns) if result.alias_info is None]
        self.draws = torch.Tag.nondeterministic_seeded in overload.tags and (
            self.on_cpu is overload._op
        )
        names = {name for _, name, _ in places}
        self.takes_generator = "generator" in names
        self.takes_device = "device" in names
        self.takes_numbers = torch._C._should_allow_numbers_as_tensors(self.name.partition(".")[0])
        #: Nothing but a kernel whose tensors come by position and whose result is one tensor: most
        #: operations of a model, which therefore have a shorter way.
        self.is_plain = (
            every_value
            and kind is Kind.COMPUTED
            and not (self.draws or self.takes_device or self.endangered_places)
            and not any(schema.arguments[i].kwarg_only for i, _ in self.tensor_places)
            and [str(result.type) for result in schema.returns] == ["Tensor"]
        )
        self.plain_places = tuple(i for i, _ in self.tensor_places)

    def __call__(self, keys: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        with torch._C.DisableTorchFunction():  # a caller's modes see its own calls only
            if not self.takes_numbers:
                args = self._without_numbers(args, kwargs)
            if self.is_plain:
                return self._plain(keys, args, kwargs)
            if self.draws:
                return self._drawn(keys, args, kwargs)
            if self.kind is Kind.READ_BACK:
                return self._read_back(args, kwargs)
            out = self._allocated(keys, args, kwargs)
            self.fill(out, args, kwargs)
            return out

    def _plain(
        self, keys: torch._C.DispatchKeySet, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        host = list(args)
        card = args
        for i in self.plain_places:
            if i >= len(args):
                break
            value = args[i]
            if isinstance(value, torch.Tensor):
                if value.is_complex():
                    out = self._shaped(args, kwargs)
                    self.fill(out, args, kwargs)
                    return out
                if value.is_cuda:
                    host[i] = alias(value)
            elif isinstance(value, list):
                host[i] = _each(_host, value)
            elif value is not None:
                card = self._without_numbers(args, kwargs)
        out = self.kernel.call_boxed(keys, *card, **kwargs)
        result = self.on_cpu(*host, **kwargs)
        if self.fresh:
            alias(out).copy_(result)
        return out

    # what the card gives

    def _allocated(
        self, keys: torch._C.DispatchKeySet, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the operation returns, without its values."""
        if self.kind is Kind.SHAPED or self._is_complex(args, kwargs):
            return self._shaped(args, kwargs)
        args = self._without_numbers(args, kwargs)
        if not self.endangered_places:
            return self.kernel.call_boxed(keys, *args, **kwargs)
        read = {
            t.data_ptr() for place in self.read_places for t in _tensors(_at(place, args, kwargs))
        }
        kept = [
            (tensor, alias(tensor).clone())
            for place in self.endangered_places
            for tensor in _tensors(_at(place, args, kwargs))
            if tensor.numel() and tensor.data_ptr() in read
            if self.for_host is _host or is_known(tensor)
        ]
        out = self.kernel.call_boxed(keys, *args, **kwargs)
        for tensor, values in kept:
            alias(tensor).copy_(values)
        return out

    def _without_numbers(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The arguments with tensors where torch turned tensors back into Python's numbers.

        Torch lets a number follow the dtype of the tensors beside it: this tensor has it already.
        """
        for i, _ in self.tensor_places:
            if i >= len(args):
                break
            if isinstance(args[i], int | float | complex):
                beside = [tensor.dtype for tensor in self._given(args, kwargs)]
                number = _number(args[i], reduce(torch.promote_types, beside, torch.bool))
                args = (*args[:i], number, *args[i + 1 :])
        return args

    def _is_complex(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether torch would compile this operation's kernel now, for complex numbers."""
        if self.kind is Kind.COPIED:
            return False
        return any(tensor.is_complex() for tensor in self._given(args, kwargs))

    def _given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
        for place in self.tensor_places:
            yield from _tensors(_at(place, args, kwargs))

    def _shaped(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operation returns, of the size that torch's meta kernel says."""
        shape = self.on_meta(*self._converted(_meta, args), **self._converted_named(_meta, kwargs))
        if self.written_places:
            return self._resized(shape, args, kwargs)
        device = self._device(args, kwargs)

        def empty(like: torch.Tensor) -> torch.Tensor:
            return torch.empty_strided(like.size(), like.stride(), dtype=like.dtype, device=device)

        return _each(empty, shape)

    def _resized(self, shape: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The arguments that are written, resized as the operation would."""
        written = [_at(place, args, kwargs) for place in self.written_places]
        for given, like in zip(written, _tensors(shape), strict=False):
            if isinstance(given, torch.Tensor) and given.size() != like.size():
                given.resize_(like.size())
        if isinstance(shape, torch.Tensor):
            return written[0]
        return None if shape is None else tuple(written)

    def _device(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device:
        return next(t.device for t in self._given(args, kwargs) if t.is_cuda)

    # what the CPU computes

    def _converted(
        self, convert: Callable[[torch.Tensor], torch.Tensor], args: tuple[Any, ...]
    ) -> list[Any]:
        converted = list(args)
        for i, _ in self.tensor_places:
            if i >= len(args):
                break
            converted[i] = _each(convert, args[i])
        return converted

    def _converted_named(
        self, convert: Callable[[torch.Tensor], torch.Tensor], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        if not kwargs:
            return kwargs
        converted = {name: _each(convert, value) for name, value in kwargs.items()}
        if self.takes_device:
            converted["device"] = CPU
        return converted

    def _computed(
        self,
        convert: Callable[[torch.Tensor], torch.Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        return self.on_cpu(
            *self._converted(convert, args), **self._converted_named(convert, kwargs)
        )

    def _fill_all(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Every value."""
        result = self._computed(_host, args, kwargs)
        for card, host in self._pairs(out, result):
            alias(card).copy_(host)

    def _fill_known(self, out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What `sizes` knows: a result from known arguments, a decision from unknown ones."""
        outs = list(_tensors(out))
        known = all(map(is_known, self._given(args, kwargs))) and all(map(is_known, outs))
        if known and not self.draws_a_decision:
            self._fill_all(out, args, kwargs)
            return
        if self.distinct:
            _fill_distinct(outs)
        elif self.is_fused:
            _fill_zeros(tensor for tensor in outs if not is_real_number(tensor))
        elif any(not is_real_number(tensor) for tensor in outs):
            all_alike = self.is_pointwise and not any(map(is_known, self._given(args, kwargs)))
            result = self._computed(_one_zero if all_alike else _host_or_zeros, args, kwargs)
            for card, host in self._pairs(out, result):
                if not is_real_number(card):
                    alias(card).copy_(host)
        _fill_zeros(tensor for tensor in outs if is_real_number(tensor) and is_known(tensor))

    def _pairs(self, out: Any, result: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """New tensors of the card with what the CPU computed for each of them."""
        if not self.fresh:
            return
        if isinstance(out, torch.Tensor):
            out, result = (out,), (result,)
        elif len(self.fresh) < len(out) and len(self.fresh) > 1:
            out, result = [out[i] for i in self.fresh], [result[i] for i in self.fresh]
        for card, host in zip(out, result, strict=False):
            # the CPU leaves empty what only the card's own backward pass needs
            if isinstance(card, torch.Tensor) and card.is_cuda and card.numel() and host.numel():
                yield card, host

    # what is read back, and what is drawn

    def _read_back(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The CPU's result, put on the card: its size was unknown until now."""
        if self.written_places:
            return self._read_back_into(args, kwargs)
        result = self._computed(self.for_host, args, kwargs)
        if not any(True for _ in _tensors(result)):
            return result
        device = self._device(args, kwargs)
        return _each(lambda tensor: sent(tensor, device), result)

    def _read_back_into(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        written = [_at(place, args, kwargs) for place in self.written_places]
        if any(tensor.layout is not torch.strided for tensor in written):
            raise NotImplementedError(f"no values of aten::{self.name} into a sparse tensor")
        named = dict(kwargs)
        for _, name in self.written_places:
            if name in named:
                named[name] = torch.empty(0, dtype=named[name].dtype, device=CPU)
        result = self._computed(self.for_host, args, named)
        for card, host in zip(written, _tensors(result), strict=True):
            if card.size() != host.size():
                card.resize_(host.size())
            alias(card).copy_(host)
        return written[0] if len(written) == 1 else tuple(written)

    def _drawn(
        self, keys: torch._C.DispatchKeySet, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """An operation that draws random numbers."""
        given = kwargs.get("generator")
        device = self._device(args, kwargs)
        with drawing(given or torch.cuda.default_generators[device.index]) as generator:
            out = self._allocated(keys, args, kwargs)
            if self.takes_generator:
                self.fill(out, args, {**kwargs, "generator": generator})
            else:
                with as_default(generator):
                    self.fill(out, args, kwargs)
        return out


@lru_cache(maxsize=1024)
def _number(value: complex, beside: torch.dtype) -> torch.Tensor:
    """A number as a tensor, of the dtype that it takes beside tensors of one."""
    dtype = torch.result_type(torch.empty((), dtype=beside, device=CPU), value)
    return torch.scalar_tensor(value, dtype=dtype, device=CPU)


def _at(place: tuple[int, str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The argument at a place of a schema, `None` where its default was left."""
    i, name = place
    return args[i] if i < len(args) else kwargs.get(name)


def _fill_zeros(tensors: Iterable[torch.Tensor]) -> None:
    for tensor in tensors:
        _host(tensor).zero_()


def _fill_distinct(outs: list[torch.Tensor]) -> None:
    """0, 1, 2, ... along the last dimension of the indices: different ones, and all there."""
    for tensor in outs:
        if not is_real_number(tensor) and tensor.numel():
            last = tensor.size(-1) if tensor.dim() else 1
            alias(tensor).copy_(torch.arange(last, device=CPU).expand(tensor.size()))

"""Values on a simulated card. Each mode's checks share a process: values cannot be removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import pytest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not os.environ.get("HYBRIDLAB_SIMULATED_CARD"), reason="a real card computes by itself"
    ),
]

START = """
import json, threading, torch
from concurrent.futures import ThreadPoolExecutor
from hybridlab.simulation import values
assert values.installed() is None
values.install(MODE)
assert values.installed() == MODE
torch.set_num_threads(1)
card, cpu = torch.device("cuda:0"), torch.device("cpu")

def on(device, value):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (tuple, list)):
        return type(value)(on(device, x) for x in value)
    return value

def same(function, *args):
    want, got = function(*args), function(*on(card, args))
    want, got = ((x if isinstance(x, (tuple, list)) else (x,)) for x in (want, got))
    for a, b in zip(want, got, strict=True):
        if isinstance(a, torch.Tensor):
            assert b.is_cuda, function
            torch.testing.assert_close(b.cpu(), a, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b, function
"""


CHECKS: dict[str, dict[str, str]] = {
    "all": {
        "operations say what the cpu says": """
torch.manual_seed(0)
F = torch.nn.functional
for shape in [(4, 6), (1, 6), (0, 6)]:
    x, y = torch.randn(shape), torch.randn(shape)
    for name in "add sub mul div maximum atan2 hypot eq lt copysign logaddexp pow".split():
        same(getattr(torch, name), x, y)
    for name in ("exp log sin erf erfc erfinv lgamma digamma sigmoid relu isnan exp2 i0 sinc "
                 "abs neg sign floor round frac").split():
        same(getattr(torch, name), x)
    for scalar in (2, 0.5, True):
        same(lambda a: (a * scalar, a / scalar, a + scalar, a > scalar, a.copysign(1.0)), x)
    same(lambda a: (2.0**a, a**2, a.clamp(-1, 1), a.half() * 0.1), x)
    same(lambda a: (a.sum(), a.mean(1), a.softmax(-1), a.cumsum(1), a.std(1), a.prod(1)), x)
    same(lambda a: torch.cat([a, a], 1), x)
    same(lambda a: torch.where(a > 0, a, 0.0), x)
x = torch.randn(5, 8)
i = torch.tensor([3, 0, 4])
same(lambda a: (a.topk(3), a.max(1), a.median(1), a.mode(1), a.sort(1), a.kthvalue(2))[0], x)
for name in "argmax argmin argsort nonzero unique unique_consecutive logcumsumexp".split():
    f = getattr(torch, name)
    same(lambda a: f(a, 1) if name in ("logcumsumexp",) else f(a), x)
same(lambda a, i: (a[i], a[a > 0], a.index_select(0, i), a[:, i], a.masked_select(a < 0)), x, i)
same(lambda i: (i.bincount(), i.repeat_interleave(i), F.one_hot(i), torch.equal(i, i)), i)
same(lambda a, b: (a @ b, torch.einsum("ij,jk->ki", a, b)), x, torch.randn(8, 3))
same(lambda a, b: torch.bmm(a, b), torch.randn(3, 4, 1), torch.randn(3, 1, 5))
same(F.layer_norm, x, (8,), torch.randn(8), torch.randn(8))
same(F.embedding, i, x)
same(lambda a, w: F.conv1d(a, w, padding=1), torch.randn(2, 4, 9), torch.randn(3, 4, 3))
same(lambda a, w: F.conv2d(a, w, stride=2), torch.randn(2, 4, 9, 9), torch.randn(3, 4, 3, 3))
same(lambda a: torch.linalg.inv(a), torch.eye(3) + 0.1)
""",
        "views and operations in place share their memory": """
def changed(x, index):
    y = x.clone()
    y[1:].mul_(2).add_(x[1:])
    y.t()[0] = 7
    y[y < 0] = 0
    y.index_add_(0, index, x[:2])
    y.index_put_((index,), x[:2], accumulate=True)
    y.view(-1)[::5].logit_(0.1)
    y.scatter_(1, index[None].expand(4, -1), 1.5)
    y.masked_fill_(y > 3, -1.0).transpose_(0, 1).unsqueeze_(0)
    torch.add(y, 1, out=y)
    out = torch.empty(0, device=x.device)
    torch.nonzero(x, out=(n := torch.empty(0, dtype=torch.int64, device=x.device)))
    torch.matmul(x, x.t(), out=out)
    return y, out, n

for inside in (torch.enable_grad, torch.no_grad, torch.inference_mode):
    with inside():
        same(changed, torch.randn(4, 5), torch.tensor([0, 2]))
x = torch.randn(4, 5, requires_grad=True)
y = x.detach().to(card).requires_grad_()
(x.exp() @ x.t()).relu().sum().backward()
(y.exp() @ y.t()).relu().sum().backward()
assert torch.equal(x.grad, y.grad.cpu())
""",
        "complex numbers and fourier transforms": """
def spectrum(x, window):
    s = torch.stft(x, 64, 16, window=window, return_complex=True)
    s2 = s.clone().transpose_(0, 1).conj_physical_()
    return s.abs() ** 2, torch.fft.irfft(torch.fft.rfft(x)), s2.imag, (s * s.conj()).real.sum()

for inside in (torch.no_grad, torch.inference_mode):
    with inside():
        same(spectrum, torch.randn(1000), torch.hann_window(64))
""",
        "sparse tensors": """
def heads(mask):
    s = mask.to_sparse()
    return s.indices().T, s.to_dense(), s.coalesce().values(), s.size()[0]

same(heads, torch.rand(4, 6) > 0.7)
same(lambda a, b: torch.sparse.mm(a.to_sparse(), b), torch.eye(4), torch.randn(4, 2))
""",
        "attention kernels with and without groups": """
from torch.nn.attention import SDPBackend, sdpa_kernel
sdpa = torch.nn.functional.scaled_dot_product_attention
q, k = torch.randn(2, 4, 7, 16), torch.randn(2, 2, 9, 16)
for backend in (SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION):
    for options in ({}, {"is_causal": True}, {"attn_mask": torch.randn(7, 7)}):
        want = sdpa(q, q, q, **options)
        with sdpa_kernel(backend):
            got = sdpa(*on(card, (q, q, q)), **{n: on(card, v) for n, v in options.items()})
        torch.testing.assert_close(got.cpu(), want)
want = sdpa(q, k, k, enable_gqa=True)
torch.testing.assert_close(sdpa(*on(card, (q, k, k)), enable_gqa=True).cpu(), want)
""",
        "a seed draws what it draws on the cpu and draws it again": """
def draw(device):
    p = torch.ones(4, 9, device=device)
    return [torch.randn(3, device=device), torch.randint(9, (5,), device=device),
            torch.multinomial(p, 3), torch.multinomial(p, 5, replacement=True),
            torch.rand(2, device=device), torch.randperm(6, device=device)]

torch.manual_seed(3)
want = draw(cpu)
host = torch.get_rng_state()
torch.manual_seed(3)
before = torch.cuda.get_rng_state()
for a, b in zip(want[:5], draw(card)):
    assert torch.equal(a, b.cpu()), (a, b)
torch.cuda.set_rng_state(before)
assert torch.equal(torch.randn(3, device=card).cpu(), want[0])
torch.manual_seed(3)
draw(card)
assert torch.equal(torch.get_rng_state(), torch.manual_seed(3).get_state())  # the CPU's is its own
""",
        "every thread and only the card": """
def work():
    with torch.inference_mode():
        return (torch.arange(5, device=card) * 2).tolist()

with ThreadPoolExecutor(2) as pool:
    assert [pool.submit(work).result() for _ in range(2)] == [[0, 2, 4, 6, 8]] * 2
told = []
threading.Thread(target=lambda: told.append(work())).start()
while not told:
    pass
assert told == [work()]
with torch.device("meta"):
    assert torch.ones(3).add(1).is_meta
""",
        "errors of the card are not hidden": """
def raised(function, kind, text):
    try:
        function()
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(text)

x = torch.ones(3, device=card)
raised(lambda: torch.empty(1 << 40, device=card), torch.OutOfMemoryError, "out of memory")
raised(lambda: x.add(torch.ones(4, device=card)), RuntimeError, "must match")
raised(lambda: x @ torch.ones(3), RuntimeError, "same device")
ints = torch.ones(3, 3, dtype=torch.int64, device=card)
raised(lambda: ints @ ints, NotImplementedError, "Long")  # the CPU can, a card cannot
raised(lambda: x[torch.tensor([5], device=card)], IndexError, "out of bounds")
""",
        "a second mode is refused": """
values.install("all")
for wrong, error in (("sizes", RuntimeError), ("none", ValueError)):
    try:
        values.install(wrong)
    except error as e:
        assert wrong == "sizes" or "none" in str(e)
    else:
        raise AssertionError(wrong)
""",
    },
    "sizes": {
        "sizes keeps integers and decides from large numbers": """
i = torch.arange(3000)
same(lambda i: (i[i % 3 == 0], i.cumsum(0), (i > 5).sum(), i.view(3, -1).sort(1)[1]), i)
lengths = torch.tensor([7, 9])  # sizes that are made by way of a floating-point number
same(lambda n: torch.arange(int(torch.ceil(n / 2).max()), device=n.device), lengths)
logits = torch.randn(5, 50000, device=card)
flat = logits.view(1, -1)
for chosen in (logits.topk(10)[1], torch.multinomial(logits, 10), flat.topk(10)[1]):
    assert all(len(set(row)) == 10 for row in chosen.tolist())
    assert chosen.min() >= 0 and chosen.max() < 50000
assert logits.argmax(-1).tolist() == [0] * 5
assert not logits.isnan().any() and logits.isfinite().all()
assert logits.sum().item() == 0.0
assert torch.multinomial(torch.zeros(4, device=card), 2).tolist() == [0, 1]
""",
        "sizes decides alike from all that it does not know": """
logits = torch.randn(300, 50000, device=card)
lowest = logits.isneginf()
assert lowest.shape == logits.shape and not lowest.any() and (logits >= 0).all()
assert not lowest.all(-1).any() and lowest.all(-1, keepdim=True).shape == (300, 1)
for known in (torch.tensor([[True, False], [False, True], [True, True]]), torch.zeros(2, 2)):
    same(lambda x: (x.all(0), x.all(1), x.all(-1, keepdim=True), x.bool().all(-2)), known)
none = torch.ones(3, 0, dtype=torch.bool)
same(lambda x: (x.all(0), x.all(1)), none)
""",
        "sizes touches almost no memory of the host": """
def resident_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

x = torch.empty(16, 16, device=card).normal_() @ torch.empty(16, 16, device=card)
before = resident_bytes()
weights = [torch.empty(8192, 8192, dtype=torch.float16, device=card).normal_() for _ in range(20)]
hidden = torch.zeros(1500, 8192, dtype=torch.float16, device=card)
for weight in weights:
    hidden = torch.nn.functional.gelu(hidden @ weight.T + 1)
heads = hidden.view(1, 1500, 64, 128).transpose(1, 2)
torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
assert resident_bytes() - before < 100 << 20, resident_bytes() - before
assert torch.cuda.memory_allocated() > 2_600_000_000
""",
    },
}
RUN = """
import traceback
failed = {}
for name, code in CODES.items():
    try:
        exec(code, dict(globals()))
    except Exception:
        failed[name] = traceback.format_exc()
print(json.dumps(failed))
"""


def failed(mode: str, codes: dict[str, str]) -> dict[str, str]:
    """What went wrong in these checks, run one after the other in a process with this mode."""
    script = START.replace("MODE", repr(mode)) + RUN.replace("CODES", repr(codes))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@cache
def failed_checks(mode: str) -> dict[str, str]:
    return failed(mode, CHECKS[mode])


@pytest.mark.parametrize(("mode", "name"), [(m, name) for m, own in CHECKS.items() for name in own])
def test_values(mode: str, name: str) -> None:
    assert failed_checks(mode).get(name, "") == ""


POCKET_PAIR = """
from hybridlab.audio import load_clips
from hybridlab.devices import CpuDevice, resolve_device
from hybridlab.models import ModelSpec, TranscribeOptions, make_asr, make_llm
clips = load_clips()[:3]
sounds = [clip.samples() for clip in clips]

def said(backend, device):
    whisper = make_asr(
        ModelSpec(model="pocket-m", backend=backend, weights="pocket", dtype="float32"), device
    )
    voxtral = make_llm(
        ModelSpec(model="pocket", backend="transformers", weights="pocket", dtype="float32"),
        device,
    )
    whisper.load(), voxtral.load()
    questions = [clip.questions[0].text for clip in clips]
    return (
        whisper.transcribe(sounds, TranscribeOptions(max_new_tokens=32)),
        voxtral.transcribe(sounds[:1], TranscribeOptions(max_new_tokens=32)),
        voxtral.answer(sounds[:1], questions[:1], max_new_tokens=32),
    )

for backend in ("transformers", "openai-whisper"):
    want = said(backend, CpuDevice())
    assert all(text.tokens for texts in want for text in texts)
    assert said(backend, resolve_device("cuda:0")) == want, backend
"""


@pytest.mark.slow
def test_pocket_models_say_token_by_token_what_they_say_on_the_cpu() -> None:
    assert failed("all", {"pocket pair": POCKET_PAIR}) == {}

"""Each call's contract, by the runtime called directly; and torch's own allocator over it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

from hybridlab.simulation import state
from hybridlab.units import MIB
from tests.simulation.conftest import RUNTIME, Bench

CONTEXT = 113 * MIB  # of a T4, before any library is loaded


def test_asking_about_devices_makes_no_context_and_using_one_does(bench: Bench) -> None:
    said = bench.call(
        """
        n, text = c.c_int(), c.create_string_buffer(1 << 12)
        assert rt.cudaGetDeviceCount(c.byref(n)) == 0 and n.value == 1
        assert rt.cudaGetDeviceProperties(text, 0) == 0
        assert rt.cudaDeviceGetAttribute(c.byref(n), 75, 0) == 0 and n.value == 7
        assert rt.cudaGetDevice(c.byref(n)) == 0
        say(asked=held())
        """
    )
    assert said == {"asked": 0}
    for use in (
        "rt.cudaSetDevice(0)",
        "rt.cudaFree(None)",
        "rt.cudaDeviceSynchronize()",
        "rt.cudaStreamCreate(c.byref(pointer()))",
        "rt.cudaEventCreate(c.byref(pointer()))",
        "info() and 0",
    ):
        assert bench.call(f"assert {use} == 0; say(used=held())") == {"used": CONTEXT}, use


def test_memory_is_granted_in_pages_until_the_card_is_full(bench: Bench) -> None:
    said = bench.call(
        """
        error, p = malloc(1)
        before = info()
        assert error == 0 and held() == 115 * MIB
        assert malloc(before[0] + 1)[0] == 2
        last = rt.cudaPeekAtLastError(), rt.cudaGetLastError(), rt.cudaGetLastError()
        words = rt.cudaGetErrorName(2).decode(), rt.cudaGetErrorString(2).decode()
        assert malloc(0)[0] == 0
        error, rest = malloc(before[0] // (2 * MIB) * 2 * MIB)
        assert error == 0 and info()[0] < 2 * MIB
        assert rt.cudaFree(p) == 0 and rt.cudaFree(rest) == 0 and rt.cudaFree(p) == 1
        say(last=last, words=words, after=info()[0] - before[0], total=before[1])
        """
    )
    total = state.read(bench.folder / "card")[0].usable_bytes
    assert said == {
        "last": [2, 2, 0],
        "words": ["cudaErrorMemoryAllocation", "out of memory"],
        "after": 2 * MIB,
        "total": total,
    }


def test_an_error_outlives_the_call_until_it_is_asked_for(bench: Bench) -> None:
    said = bench.call("rt.cudaFree(c.c_void_p(64)); info(); say(last=rt.cudaGetLastError())")
    assert said == {"last": 1}


def test_copies_carry_what_they_should(bench: Bench) -> None:
    code = """
        n = 3 * MIB
        host, back = c.create_string_buffer(os.urandom(n), n), c.create_string_buffer(n)
        _, a = malloc(n)
        _, b = malloc(n)
        pinned = pointer()
        assert rt.cudaHostAlloc(c.byref(pinned), c.c_size_t(n), 0) == 0
        assert rt.cudaMemcpy(a, host, n, H2D) == 0
        assert rt.cudaMemcpy(b, a, n, D2D) == 0
        assert rt.cudaMemcpy(back, b, n, D2H) == 0
        assert rt.cudaMemcpy(pinned, b, n, D2H) == 0
        assert rt.cudaMemcpy(host, back, n, H2D) == 1 and rt.cudaMemcpy(a, back, n, D2H) == 1
        moved = state.read(STATE)[0].activity
        same = back.raw == host.raw, back.raw[:4096] == host.raw[:4096]
        say(same=same, ends=back.raw[-4096:] == host.raw[-4096:],
            moved=[moved.to_device_bytes, moved.to_host_bytes, moved.on_device_bytes])
        """
    moved = [3 * MIB, 6 * MIB, 3 * MIB]
    assert bench.call(code) == {"same": [True, True], "ends": True, "moved": moved}
    bench.create("t4")
    limited = bench.call(code, HYBRIDLAB_SIMULATED_COPY_LIMIT=str(MIB))
    assert limited == {"same": [False, True], "ends": True, "moved": moved}


def test_host_memory_is_pinned_up_to_a_limit(bench: Bench) -> None:
    bench.create("t4", pinned_limit_bytes=8 * MIB)
    said = bench.call(
        """
        p, buffer = pointer(), c.create_string_buffer(6 * MIB)
        answers = [
            rt.cudaHostAlloc(c.byref(p), c.c_size_t(9 * MIB), 0),
            rt.cudaGetLastError(),
            rt.cudaHostAlloc(c.byref(p), c.c_size_t(4 * MIB), 0),
            rt.cudaHostRegister(buffer, 6 * MIB, 0),
            rt.cudaHostRegister(buffer, 3 * MIB, 0),
            rt.cudaHostRegister(buffer, 3 * MIB, 0),
            rt.cudaHostRegister(buffer, 0, 0),
            rt.cudaFreeHost(buffer),
            rt.cudaHostUnregister(p),
        ]
        held = users()[0].pinned_bytes
        kinds = []
        class About(c.Structure):
            _fields_ = [("type", c.c_int), ("device", c.c_int), ("at", c.c_void_p), ("host", c.c_void_p), ("more", c.c_long * 8)]
        for at in (p.value, c.addressof(buffer), malloc(1)[1].value, id(About)):
            about = About()
            assert rt.cudaPointerGetAttributes(c.byref(about), c.c_void_p(at)) == 0
            kinds.append(about.type)
        gone = [rt.cudaHostUnregister(buffer), rt.cudaHostUnregister(buffer), rt.cudaFreeHost(p)]
        say(answers=answers, held=held, kinds=kinds, gone=gone, left=users()[0].pinned_bytes)
        """  # noqa: E501
    )
    invalid, out_of_memory, already, not_registered = 1, 2, 712, 713
    assert said == {
        "answers": [
            *(out_of_memory, out_of_memory, 0, out_of_memory, 0, already),
            *(invalid, invalid, not_registered),
        ],
        "held": 7 * MIB,
        "kinds": [1, 1, 2, 0],
        "gone": [0, not_registered, 0],
        "left": 0,
    }


def test_a_full_card_refuses_even_a_context(
    bench: Bench, other: Callable[[], subprocess.Popen[bytes]]
) -> None:
    path = bench.folder / "card"
    state.inject(path, pid=other().pid, n_bytes=state.read(path)[0].usable_bytes - 50 * MIB)
    said = bench.call("say(error=rt.cudaFree(None), asked=rt.cudaGetDevice(c.byref(c.c_int())))")
    assert said == {"error": 2, "asked": 0}


def test_a_killed_process_gives_its_memory_back(bench: Bench) -> None:
    code = RUNTIME + "assert malloc(1 << 30)[0] == 0\nsay(ready=True)\ninput()"
    killed, living = bench.start(code), bench.start(code)
    with killed, living:
        for process in (killed, living):
            assert process.stdout is not None
            assert process.stdout.readline()
        assert state.used_bytes(bench.folder / "card") == 2 * (CONTEXT + 1024 * MIB)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert state.used_bytes(bench.folder / "card") == CONTEXT + 1024 * MIB
        living.kill()


def test_processes_that_are_killed_while_they_allocate_leave_no_lock(bench: Bench) -> None:
    code = RUNTIME + "say(ready=True)\nwhile True:\n    rt.cudaFree(malloc(1)[1])"
    for _ in range(5):
        with bench.start(code) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.kill()
    assert bench.call("say(error=malloc(1)[0])") == {"error": 0}


def test_a_fork_of_a_process_that_used_cuda_cannot_use_it(bench: Bench) -> None:
    said = bench.call(
        """
        def child(use):
            pid = os.fork()
            if not pid: os._exit(use())
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        before = child(lambda: malloc(1)[0])
        info()
        after = child(lambda: malloc(1)[0])
        say(before=before, after=after, users=len(users()))
        """
    )
    assert said == {"before": 0, "after": 3, "users": 1}


# ----------------------------------------------------------------------------- torch's allocator


def test_torch_allocates_peaks_and_runs_out_as_on_a_card(bench: Bench) -> None:
    said = bench.run(
        """
        import torch
        torch.cuda.memory._record_memory_history()
        free, total = torch.cuda.mem_get_info()
        keep = torch.zeros(10 * MIB, dtype=torch.uint8, device="cuda")
        drop = torch.empty(100 * MIB, dtype=torch.uint8, device="cuda")
        del drop
        reserved = torch.cuda.memory_reserved()
        try: torch.empty(20 << 30, dtype=torch.uint8, device="cuda")
        except torch.OutOfMemoryError as error: text = str(error)
        flushed = torch.cuda.memory_reserved()
        snapshot = torch.cuda.memory._snapshot()
        say(allocated=torch.cuda.memory_allocated(), peak=torch.cuda.max_memory_allocated(),
            reserved=reserved, flushed=flushed, text=text, retries=torch.cuda.memory_stats()["num_alloc_retries"],
            segments=[s["total_size"] for s in snapshot["segments"]],
            traced=[e["action"] for e in snapshot["device_traces"][0]],
            held=held(), pinned=torch.empty(8, pin_memory=True).is_pinned())
        """  # noqa: E501
    )
    assert said["allocated"] == 10 * MIB
    assert said["peak"] == 110 * MIB
    assert said["reserved"] == 110 * MIB
    assert said["flushed"] == 10 * MIB  # the cache is given back before memory runs out
    assert said["retries"] == 1
    assert said["segments"] == [10 * MIB]
    assert {"alloc", "free_completed", "segment_alloc", "segment_free", "oom"} <= set(
        said["traced"]
    )
    assert "Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 14.56 GiB" in said["text"]
    assert "this process has 123.00 MiB memory in use" in said["text"]
    assert said["held"] == CONTEXT + 10 * MIB
    assert said["pinned"]


def test_expandable_segments_take_and_give_pages(bench: Bench) -> None:
    said = bench.run(
        """
        import torch
        grown = []
        a = torch.empty(30 * MIB, dtype=torch.uint8, device="cuda"); grown.append(held())
        b = torch.empty(50 * MIB, dtype=torch.uint8, device="cuda"); grown.append(held())
        segments = torch.cuda.memory._snapshot()["segments"]
        b.copy_(torch.full((50 * MIB,), 7, dtype=torch.uint8))
        value = int(b[-1].cpu())
        del b; torch.cuda.empty_cache(); grown.append(held())
        say(grown=grown, segments=len(segments), expandable=segments[0]["is_expandable"],
            value=value)
        """,
        PYTORCH_CUDA_ALLOC_CONF="expandable_segments:True",
    )
    grown = [CONTEXT + 40 * MIB, CONTEXT + 80 * MIB, CONTEXT + 40 * MIB]
    assert said == {"grown": grown, "segments": 1, "expandable": True, "value": 7}


def test_cublas_brings_its_kernels_and_torch_its_workspace(bench: Bench) -> None:
    code = """
        import torch
        x = torch.zeros(64, 64, device="cuda")
        before, allocated = users()[0], torch.cuda.memory_allocated()
        x @ x
        after = users()[0]
        say(kernels=after.context_bytes - before.context_bytes,
            workspace=torch.cuda.memory_allocated() - allocated)
        """
    t4 = bench.run(code)
    bench.create("h100")
    h100 = bench.run(code)
    assert (t4["kernels"], h100["kernels"]) == (31 * MIB, 150 * MIB)
    assert 8 * MIB <= t4["workspace"] < 10 * MIB
    assert 32 * MIB <= h100["workspace"] < 34 * MIB

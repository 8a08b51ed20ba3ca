"""Memory for copies: used again by size, returned beyond the spare, never shared while in use."""

from __future__ import annotations

from flyweight.policies.llamacpp.buffers import STEP, Buffers


def test_what_is_in_use_is_never_handed_out_twice() -> None:
    buffers = Buffers(spare=8 * STEP)
    arrays = [buffers.take(STEP - i) for i in range(4)]
    for value, array in enumerate(arrays):
        array[:] = value
    assert [int(array.max()) for array in arrays] == [0, 1, 2, 3] == [int(array.min()) for array in arrays]
    assert [array.size for array in arrays] == [STEP, STEP - 1, STEP - 2, STEP - 3] and buffers.free == 0


def test_a_free_buffer_serves_the_next_of_its_size() -> None:
    buffers = Buffers(spare=8 * STEP)
    first = buffers.take(STEP + 1)
    first[:] = 7
    at = first.ctypes.data
    del first
    assert buffers.free == 2 * STEP
    assert buffers.take(10).size == 10  # of another size: fresh, and free again at once
    assert buffers.free == 3 * STEP
    again = buffers.take(2 * STEP)
    assert again.ctypes.data == at and again[STEP] == 7


def test_beyond_the_spare_the_oldest_go() -> None:
    buffers = Buffers(spare=3 * STEP)
    arrays = [buffers.take((i + 1) * STEP) for i in range(3)]
    while arrays:
        arrays.pop(0)
    assert buffers.free == 3 * STEP


def test_a_buffer_may_outlive_its_owner() -> None:
    array = Buffers(spare=0).take(100)
    array[:] = 1
    assert int(array.sum()) == 100

"""What judges the kernels: it must see what is wrong."""

import pytest
import torch

from malgil_kernels.testing import GUARD_BYTES, check_op, poisoned, relative_error


def test_the_error_is_relative_to_the_largest_magnitude():
    assert relative_error(torch.tensor([1.0, 99.0]), torch.tensor([1.0, 100.0])) == pytest.approx(0.01)
    assert relative_error(torch.tensor([float("nan")]), torch.tensor([1.0])) == float("inf")
    assert relative_error(torch.empty(0, 4), torch.empty(0, 4)) == 0
    assert relative_error(torch.tensor([1.0]), torch.tensor([0.0]), terms=torch.tensor([10.0])) == 0.1
    with pytest.raises(ValueError, match="differ"):
        relative_error(torch.ones(2), torch.ones(3))


def test_poisoned_memory_is_nan_or_huge_and_keeps_shape_dtype_and_layout():
    like = torch.zeros(4, 6).t()
    with poisoned():
        made = [torch.empty(3, 2), torch.empty((5,), dtype=torch.bfloat16), torch.empty(2, 0)]
        alike = torch.empty_like(like)
        dense = torch.empty_like(like, memory_format=torch.contiguous_format)
        integers = [torch.empty(7, dtype=torch.int32), like.new_empty(2, 3, dtype=torch.int64)]
        new = like.new_empty((2, 3))
    assert [tuple(x.shape) for x in made] == [(3, 2), (5,), (2, 0)]
    assert alike.stride() == like.stride()
    assert dense.stride() == (4, 1)
    assert all(x.isnan().all() for x in (*made, alike, dense, new))
    assert all((x > 2**30).all() for x in integers)
    assert not torch.empty(1000).isnan().all()


@pytest.mark.parametrize("offset", [-1, 6])
def test_a_store_outside_of_its_tensor_is_seen(offset):
    with pytest.raises(AssertionError, match=r"(before|after) the memory of a \(2, 3\) tensor"), poisoned():
        x = torch.empty(2, 3)
        base = GUARD_BYTES // 4
        x.untyped_storage()[(base + offset) * 4] = 0


class Scaled(torch.autograd.Function):
    """y = 2x with a chosen mistake."""

    @staticmethod
    def forward(ctx, x, mistake):
        ctx.mistake = mistake
        y = torch.empty_like(x)
        y[: -1 if mistake == "unwritten" else None] = 2 * x[: -1 if mistake == "unwritten" else None]
        return y

    @staticmethod
    def backward(ctx, dy):
        flat = torch.as_strided(dy, dy.shape, (dy.shape[1], 1)) if ctx.mistake == "contiguous" else dy
        return (3 if ctx.mistake == "gradient" else 2) * flat, None


@pytest.mark.parametrize(
    ("mistake", "named"),
    [("unwritten", "output 0"), ("gradient", "gradient of input 0"), ("contiguous", "gradient of input 0")],
)
def test_check_op_names_what_is_wrong(mistake, named):
    x = torch.randn(4, 5, requires_grad=True)
    with pytest.raises(AssertionError, match=named):
        check_op(lambda x: Scaled.apply(x, mistake), lambda x: 2 * x, x)


def test_check_op_returns_the_errors_of_what_is_right():
    x = torch.randn(4, 5, requires_grad=True)
    assert check_op(lambda x: Scaled.apply(x, ""), lambda x: 2 * x, x) == {
        "output 0": 0.0,
        "gradient of input 0": 0.0,
    }

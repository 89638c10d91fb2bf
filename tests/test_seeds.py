"""Every random number is a function of the names of its purpose."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ctkd.seeds import generator, seed_of, seeded

NAMES = st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=4)


@given(NAMES, NAMES)
def test_different_names_give_different_seeds_and_equal_ones_the_same(one, other):
    assert (seed_of(*one) == seed_of(*other)) == (one == other)


@given(NAMES)
def test_a_seed_is_one_that_torch_takes(names):
    seed = seed_of(*names)
    assert 0 <= seed < 2**63
    torch.Generator().manual_seed(seed)


def test_where_a_name_ends_and_what_type_it_has_counts():
    assert (
        len({seed_of("ab", "c"), seed_of("a", "bc"), seed_of("abc"), seed_of("a", "b", "c")}) == 4
    )
    assert seed_of(1, "order") != seed_of("1", "order")
    assert seed_of(0, "order", 1) != seed_of(1, "order", 0)


def test_another_process_draws_the_same_numbers(python):
    code = (
        "import torch; from ctkd.seeds import generator; "
        "print(torch.randint(10**9, (3,), generator=generator(7, 'order', 2)).tolist())"
    )
    drawn = torch.randint(10**9, (3,), generator=generator(7, "order", 2)).tolist()
    assert python(code, PYTHONHASHSEED="123").out.strip() == str(drawn)


def test_streams_of_neighboring_epochs_are_uncorrelated():
    streams = torch.stack(
        [torch.randn(4000, generator=generator(0, "order", epoch)) for epoch in range(8)]
    )
    off_diagonal = torch.corrcoef(streams) - torch.eye(8)
    assert off_diagonal.abs().max() < 5 / 4000**0.5  # five standard deviations


def test_inside_seeded_the_global_generator_is_the_purposes_and_outside_as_before():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with seeded(5, "student"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(4), expected)
    with seeded(5, "student"):
        assert torch.equal(torch.rand(2), inside)
    with seeded(5, "teacher"):
        assert not torch.equal(torch.rand(2), inside)


def test_seeded_restores_the_generator_after_an_error_too():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    try:
        with seeded("x"):
            torch.rand(1)
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(torch.get_rng_state(), before)

"""Ids that begin with the time."""

import time
import uuid

from shared.ids import time_ordered_id


def test_it_is_a_uuid_of_version_7_with_the_millisecond_in_front() -> None:
    before = time.time_ns() // 1_000_000
    made = time_ordered_id()
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after


def test_a_later_one_sorts_behind_as_text_too() -> None:
    made = []
    for _ in range(5):
        made.append(time_ordered_id())
        time.sleep(0.002)
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def test_no_two_are_the_same_and_every_bit_that_may_be_random_is() -> None:
    made = [time_ordered_id().int for _ in range(20_000)]
    assert len(set(made)) == len(made)
    ever, always = 0, (1 << 128) - 1
    for one in made:
        ever |= one
        always &= one
    random_bits = (1 << 62) - 1 | 0xFFF << 64
    assert ever & random_bits == random_bits
    assert always & random_bits == 0

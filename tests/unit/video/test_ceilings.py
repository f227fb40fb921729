"""How many bytes an upload may have: exactly what is left, and the first one too many is refused in the right words."""

import pytest
from unit.video.fakes import MAX, OVERHEAD, Form, World

from shared.errors import Invalid, ServiceError, TooLarge


@pytest.mark.parametrize(
    ("storage", "usage", "sentence"),
    [
        (100, 200, "Exceeding total storage limit"),
        (200, 100, "Exceeding daily bandwidth limit"),
        (100, 100, "Exceeding total storage limit"),
        (MAX * 2, MAX * 2, "one upload may have"),
        (MAX, MAX, "one upload may have"),
        (MAX * 2, 100, "Exceeding daily bandwidth limit"),
    ],
)
async def test_the_first_byte_too_many_is_refused_in_the_words_of_the_lowest_ceiling(
    storage: int, usage: int, sentence: str
) -> None:
    world = World()
    world.storage.left, world.usage.left = storage, usage
    with pytest.raises(ServiceError, match=sentence):
        await world.upload(Form(b"x" * (MAX + 1)))


@pytest.mark.parametrize("quota", ["storage", "usage"])
@pytest.mark.parametrize("beside", [None, 0, 1, OVERHEAD // 2, OVERHEAD])
async def test_a_file_that_exactly_fills_what_is_left_is_accepted_and_one_byte_more_refused(
    quota: str, beside: int | None
) -> None:
    """``beside`` is what the form has beside the file, in bytes; None: the body comes with no length."""
    for size, fits in ((300, True), (301, False)):
        world = World()
        getattr(world, quota).left = 300
        upload = world.upload(Form(b"x" * size), None if beside is None else size + beside)
        if fits:
            assert (await upload).size == 300
        else:
            with pytest.raises(ServiceError, match="Exceeding"):
                await upload
            assert world.holds_nothing()


@pytest.mark.parametrize("beside", [None, 1, OVERHEAD])
async def test_the_largest_upload_is_accepted_and_one_byte_more_refused(beside: int | None) -> None:
    world = World()
    assert (await world.upload(Form(b"x" * MAX), None if beside is None else MAX + beside)).size == MAX
    with pytest.raises(TooLarge, match="MB that one upload may have"):
        await world.upload(Form(b"x" * (MAX + 1)), None if beside is None else MAX + 1 + beside)


async def test_a_declared_length_over_the_limit_is_refused_before_anybody_is_asked() -> None:
    world = World()
    with pytest.raises(TooLarge, match="one upload may have"):
        await world.upload(declared=MAX + OVERHEAD + 1)
    assert world.users.calls == world.storage.calls == world.usage.calls == []


@pytest.mark.parametrize("declared", [0, 1, OVERHEAD])
async def test_a_declared_length_that_leaves_no_room_for_a_video_asks_for_one_byte(declared: int) -> None:
    world = World()
    with pytest.raises(Invalid):
        await world.upload(Form(b""), declared)
    assert world.holds_nothing()

"""The case of the two engines: PostgreSQL and Cloud Storage, beside SQLite and a folder.

The fake of PostgREST and the emulator of Cloud Storage are made for tests, and are slow. The figure that holds in
production is therefore the processor time of the five services alone.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import gcs
import videos
from cryptography.hazmat.primitives.asymmetric import rsa
from e2e.engines import Cloud
from measures import Bench, Figures, in_turn
from product import Product, running
from small import full_load
from standins.keys import Keys
from standins.postgres import MIGRATIONS, Postgres
from standins.serving import ServedApart
from transfers import send_videos
from unit.storage.signatures import write_key_file

FEED = "/api/videos/stream?limit=16"
CONNECTIONS = 8
"""As many as the fake of PostgREST answers without a queue."""

Forget = Callable[[], None]


@contextmanager
def cloud(migrations: Path = MIGRATIONS) -> Iterator[tuple[Cloud, Forget]]:
    """A PostgreSQL with these migrations behind the fake of PostgREST, and an emulator of Cloud Storage. The function
    forgets the requests that the emulator's proxy has recorded, with their bodies.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        database = stack.enter_context(Postgres(migrations)).create_database()
        emulator = stack.enter_context(gcs.running("fake-gcs-server"))
        key_file = folder / "key.json"
        write_key_file(key_file, rsa.generate_private_key(65_537, 2048))
        keys = Keys()
        postgrest = stack.enter_context(ServedApart(database.as_authenticator, keys.secret))
        supabase = {"SUPABASE_URL": postgrest.url, "SUPABASE_KEY": keys.service}
        yield Cloud(database, supabase, emulator, key_file), emulator.front.forget


def fill(product: Product) -> None:
    """A first user, and a full page of small videos."""
    (person,) = product.enough_people(1)
    for number in range(16):
        product.put_video(person, videos.exactly(60_000 + number))


def send_to_cloud(product: Product, video: bytes, forget: Forget) -> Figures:
    """As ``send_videos``; whether the whole video was stored is asked of the bucket."""

    def are_stored(urls: list[str]) -> bool:
        sizes = product.services.engine.stored()
        return all(sizes.get(f"{Path(url).stem}.video") == len(video) for url in urls)

    figures = send_videos(product, video, at_once=1, each=2, check=are_stored)
    forget()
    return figures


def both(bench: Bench) -> Generator[Figures, None, None]:
    """An upload of 50 MiB and a page of 16 videos. Both engines hold the same few videos."""
    with ExitStack() as stack:
        engine, forget = stack.enter_context(cloud())
        products = {
            "embedded": stack.enter_context(running(bench.folder / "embedded")),
            "cloud": stack.enter_context(running(bench.folder / "cloud", engine=engine)),
        }
        for product in products.values():
            fill(product)
        while True:
            figures: Figures = {}
            for name, product in in_turn(products):
                if name == "cloud":
                    upload = send_to_cloud(product, bench.video, forget)
                else:
                    upload = send_videos(product, bench.video, at_once=1, each=2)
                feed = full_load(product, "video", FEED, connections=CONNECTIONS)
                figures |= {f"{name} upload {figure}": value for figure, value in upload.items()}
                figures |= {f"{name} feed {figure}": value for figure, value in feed.items()}
            yield figures

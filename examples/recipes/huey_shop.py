"""Tasks for Huey. Every consumer enqueues the periodic ones, so let one consumer do it, under a lease.

On each machine:

    politics lock shop-huey -- huey_consumer huey_shop.huey      # one of these runs, and enqueues
    huey_consumer --no-periodic huey_shop.huey                   # all of these run, and only work

For several machines use `RedisHuey`. `SqliteHuey` needs no server and is for one machine.
"""

import os

from huey import SqliteHuey, crontab

huey = SqliteHuey("shop", filename=os.environ.get("HUEY_FILE", "huey.db"))


@huey.periodic_task(crontab(minute="*"))
def poll_bank() -> None:
    """Look for new payments, once a minute."""
    print("polled the bank", flush=True)

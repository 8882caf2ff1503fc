"""Jobs that RQ enqueues at their times. `rq cron` must run only once, so let it run under a lease.

On each machine:

    politics lock shop-cron -- rq cron --path . rq_cron      # one of these runs, and enqueues
    rq worker --path .                                       # all of these run, and work
"""

from rq import cron


def poll_bank() -> None:
    """Look for new payments."""


cron.register(poll_bank, queue_name="default", interval=1)

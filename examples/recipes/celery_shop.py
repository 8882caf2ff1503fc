"""A Celery app whose `celery beat` may run on several machines: one of them sends.

    celery -A celery_shop beat -S politics.integrations.celery:LeaderScheduler

`$BROKER` is the URL of the broker, and `$POLITICS_STORE` that of the store in which the beats compete.
"""

import os
from typing import Any

from celery import Celery
from celery.schedules import crontab

app = Celery("shop", broker=os.environ.get("BROKER", "redis://localhost:6379/0"))
app.conf.beat_schedule = {
    "poll-bank": {"task": "poll_bank", "schedule": 1.0},
    "send-invoices": {"task": "send_invoices", "schedule": crontab(hour="3", minute="0")},
}
app.conf.politics_lease_ttl = 2.0  # a beat that fell silent is replaced after this time


@app.task(name="poll_bank", bind=True)
def poll_bank(self: Any) -> None:
    """Look for new payments."""
    print("tick", self.request.headers["politics_tick"], flush=True)

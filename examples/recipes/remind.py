"""A Django command that may run on several machines: one of them sends the reminders.

Put this file into an app of your project, as `management/commands/remind.py`, and run on each machine:

    python manage.py remind
"""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from politics import Term, TokenWorker


class Reminders(TokenWorker):
    group = "shop.reminders"
    iteration_length = 60.0
    sticky = True

    def perform(self, term: Term) -> None:
        from django.contrib.auth.models import User  # here: Django has to be set up first

        for user in User.objects.filter(is_active=True).iterator():
            term.check()  # raises when another machine may send
            print(f"reminding {user.username} (fence {term.fence})", flush=True)


class Command(BaseCommand):
    help = "Remind our users, from one machine at a time."

    def handle(self, *_args: Any, **_options: Any) -> None:
        Reminders(store=settings.POLITICS_STORE).process()

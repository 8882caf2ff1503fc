"""The worker of the recipes for systemd and Kubernetes: one of several sends the mail."""

from politics import Term, TokenWorker


class Mailer(TokenWorker):
    group = "mailer"
    iteration_length = 60.0
    sticky = True

    def perform(self, term: Term) -> None:
        print(f"sending as leader (fence {term.fence})", flush=True)

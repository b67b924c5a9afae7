"""What a job in the queue names as its function."""


class NotFrankersWorkerError(RuntimeError):
    """A stock RQ worker took a message. It relays nothing; RQ puts the message back in 30 s."""


def relay(message_id: str) -> None:
    """Refuse to run: only `franker worker` relays mail, without calling this.

    Every message carries so many retries that a refusal can never make it a dead letter.

    Raises:
        NotFrankersWorkerError: always.
    """
    raise NotFrankersWorkerError(
        f"mail {message_id} is relayed by `franker worker`, not by `rq worker`: it stays queued"
    )

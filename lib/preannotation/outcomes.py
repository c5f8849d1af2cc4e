"""Send the studies to the workers, and collect the outcomes."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from distributed import Client, Future, KilledWorker, as_completed

from lib.preannotation.cluster import ClusterError
from lib.preannotation.job import Job
from lib.preannotation.task import WorkerError, check, propose
from lib.server.jobs.proposal_progress import Outcome

MAX_SUBMITTED = 512
"""Studies that are submitted at a time: more than workers, and few enough for the scheduler's memory."""

RETRIES = 2

Task = Callable[[str, Job], Outcome]


def check_workers(client: Client, job: Job) -> None:
    """Let each worker open the studies and load the model.

    Raises:
        ClusterError: a worker cannot, and would fail on every study.
    """
    for address, error in client.run(check, job, on_error="return").items():
        if isinstance(error, WorkerError):
            raise ClusterError(f"The worker {address} cannot be used: {error}")
        if isinstance(error, BaseException):
            raise ClusterError(f"The worker {address} cannot be used ({type(error).__name__}: {error}).")


def outcomes(client: Client, images: Iterable[str], job: Job, task: Task = propose) -> Iterator[Outcome]:
    """Yield the outcome of each image when it is done.

    Raises:
        ClusterError: the scheduler has ended; stored proposals are kept.
    """
    left = deque(images)
    running: dict[str, str] = {}  # image ids by the keys of their tasks
    done = as_completed()

    def submit() -> None:
        while left and len(running) < MAX_SUBMITTED:
            image_id = left.popleft()
            future = client.submit(
                task, image_id, job, key=f"propose-{image_id}-{job.model_sha256[:12]}", retries=RETRIES
            )
            running[str(future.key)] = image_id
            done.add(future)

    submit()
    for future in done:
        outcome = _outcome(running.pop(str(future.key)), future)
        if outcome.state == "divided":
            left.extend(outcome.images)
        del future  # so that the scheduler releases it
        yield outcome
        submit()


def _outcome(image_id: str, future: Future) -> Outcome:
    """Return the outcome of a task. Dask repeats tasks whose result was lost with their worker."""
    try:
        return Outcome(*future.result())
    except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
        raise ClusterError(
            "The scheduler has ended. Stored proposals are kept; run the same command again to continue."
        ) from error
    except KilledWorker:
        reason = "Its worker was ended each time that it was tried, perhaps for lack of memory."
    except WorkerError as error:
        reason = str(error)
    except Exception as error:  # an error of one study must not stop the others
        reason = f"It could not be segmented ({type(error).__name__}: {error})."
    return Outcome(image_id, "failed", reason)

"""A grid search: one job for each combination; when one is good enough, the jobs that have not ended are cancelled."""

from itertools import product

from apothic import App, Image, Job, JobCancelledError

app = App("grid-search")
science = Image.debian_slim().uv_pip_install("scikit-learn>=1.6,<2")

GRID = list(product((1.0, 10.0, 100.0, 1000.0), (0.001, 0.05, 10.0)))
GOOD_ENOUGH = 0.96


@app.function(image=science, memory_mb=512, timeout_s=120, max_containers=2)
def accuracy(c: float, gamma: float) -> float:
    """Return the share of handwritten digits that a support-vector machine reads right, over three folds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.svm import SVC

    images, digits = load_digits(return_X_y=True)
    return float(cross_val_score(SVC(C=c, gamma=gamma), images / 16, digits, cv=3).mean())


def end_of(job: Job[float]) -> str:
    """Wait for the end of a job and say which it was."""
    try:
        job.wait()
    except JobCancelledError:
        return "cancelled"
    return "succeeded"


if __name__ == "__main__":
    app.deploy()
    jobs = [accuracy.spawn(c, gamma) for c, gamma in GRID]
    for (c, gamma), job in zip(GRID, jobs, strict=True):
        found = job.wait()
        print(f"C={c:g} gamma={gamma:g}: {found:.3f}")
        if found >= GOOD_ENOUGH:
            break
    for job in jobs:
        job.cancel()
    ends = [end_of(job) for job in jobs]
    print(f"{len(jobs)} jobs: {ends.count('succeeded')} succeeded, {ends.count('cancelled')} were cancelled")

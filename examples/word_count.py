"""A batch job: count the words of a text on the cloud, watch its output, read its result."""

from collections import Counter

from apothic import App, RemoteFunction

app = App("word-count")

LINES = """
the quick brown fox jumps over the lazy dog
the dog sleeps and the fox runs
"""


@app.function(cpu=1, memory_mb=256, timeout_s=60)
def count_words(text: str, top: int = 3) -> dict[str, int]:
    counts = Counter(text.split())
    print(f"{sum(counts.values())} words, {len(counts)} different")
    return dict(counts.most_common(top))


if __name__ == "__main__":
    app.deploy()
    job = RemoteFunction.from_name("word-count", "count_words").spawn(LINES * 2_000, top=3)
    print("job:", job.job_id)
    print("result:", job.wait(timeout_s=60))
    print("status:", job.status())
    print("output:", *job.logs())

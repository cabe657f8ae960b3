from apothic import App, RemoteFunction

app = App("hello-world")


@app.function(cpu=1, memory_mb=512, timeout_s=60)
def greet(name: str) -> str:
    return f"hello, {name}"


deployment_id = app.deploy()
remote = RemoteFunction.from_name("hello-world", "greet")
print(deployment_id)
print(remote.remote("world"))

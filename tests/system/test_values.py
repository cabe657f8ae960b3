"""Values on their way to a function and back."""


def test_values_that_are_no_json_come_back_as_what_they_were(cloud, jobs_app, person):
    ran = person.script(
        """
        from datetime import datetime, timedelta, timezone
        from apothic import RemoteFunction
        echo = RemoteFunction.from_name("jobs", "echo")
        values = [
            None, True, 1.5, "Grüße \\U0001f600", b"\\x00\\xff", {1, 2}, (1, (2, 3)), {"a": [1, {"b": None}]},
            datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2))), {1: "one"}, 2**70, float("inf"),
            complex(1, 2), range(3),
        ]
        for value in values:
            result = echo.remote(value)
            assert (type(result), result) == (type(value), value), (value, result)
        print("same")
        """
    ).ok()

    assert ran.out == "same\n"


def test_a_class_of_the_app_file_travels_both_ways(cloud, jobs_app, person):
    person.copy("tests/system/jobs_app.py")
    ran = person.script(
        """
        from datetime import datetime
        from jobs_app import Parcel
        from apothic import RemoteFunction
        sent = Parcel("book", datetime(2024, 2, 29), {"new"}, b"abc")
        got = RemoteFunction.from_name("jobs", "stamp").remote(sent)
        assert type(got) is Parcel
        print(got == Parcel("BOOK", datetime(2024, 2, 29), {"new", "stamped"}, b"cba"))
        """
    ).ok()

    assert ran.out == "True\n"


def test_a_class_of_the_program_itself_travels_both_ways(cloud, person):
    ran = person.script(
        """
        from dataclasses import dataclass
        from apothic import App, RemoteFunction

        app = App("own-class")

        @dataclass
        class Point:
            x: int
            y: int

        @app.function()
        def mirror(point: Point) -> Point:
            return Point(point.y, point.x)

        app.deploy()
        got = RemoteFunction.from_name("own-class", "mirror").remote(Point(1, 2))
        print(type(got) is Point, got == Point(2, 1))
        """,
        name="own_class.py",
    ).ok()

    assert ran.out == "True True\n"


def test_half_a_mebibyte_travels_both_ways(cloud, jobs_app, person):
    ran = person.script(
        """
        import os
        from apothic import RemoteFunction
        value = os.urandom(500 * 1024)
        print(RemoteFunction.from_name("jobs", "echo").remote(value) == value)
        """
    ).ok()

    assert ran.out == "True\n"


def test_a_value_just_over_what_one_request_carries_travels_as_well(cloud, jobs_app, person):
    ran = person.script(
        """
        from apothic import RemoteFunction
        sent = bytes(range(256)) * 4096 + b"1"
        print(RemoteFunction.from_name("jobs", "echo").remote(sent) == sent)
        """
    ).ok()

    assert ran.out == "True\n"


def test_an_argument_that_cannot_be_sent_is_named(cloud, jobs_app, person):
    ran = person.script(
        """
        import threading
        from apothic import RemoteFunction
        from apothic.errors import SerializationError
        try:
            RemoteFunction.from_name("jobs", "echo").remote({"lock": threading.Lock()})
        except SerializationError as error:
            print(error.code, error)
        """
    ).ok()

    assert ran.out.startswith("not_serializable ")
    assert "lock" in ran.out

"""A facility whose sessions are watched, with a clock of ours."""

import json
from datetime import UTC, datetime, timedelta

from tomoseg.service.watching.looks import look, orders, survey
from tomoseg.service.watching.opening import opened_run
from tomoseg.service.watching.settings import load_watch

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Site:
    """A facility: folders of sessions, a watch's file, and a clock."""

    def __init__(self, home, model, tomogram):
        self.home, self.now, self.begun = home, NOON, []
        self.tomogram = tomogram.read_bytes()
        recipe = {
            "segment": {"model": str(model)},
            "trace": {},
            "pick": {},
            "export": {"masks": False},
            "compute": {"runner": "serial"},
        }
        (home / "recipe.yaml").write_text(json.dumps(recipe))
        self.write()

    def write(self, **changes):
        values = {
            "sessions": "in/*",
            "output": "out/{session}",
            "recipes": [{"recipe": "recipe.yaml"}],
            "settle_seconds": 30,
            **changes,
        }
        (self.home / "watch.yaml").write_text(json.dumps(values))
        return self.watch

    @property
    def watch(self):
        return load_watch(self.home / "watch.yaml", {})

    def put(self, session, name, content=None):
        path = self.home / "in" / session / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.tomogram if content is None else content)
        return path

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def look(self):
        return {one.session.name: one for one in look(self.watch, self.now)}

    def survey(self):
        return survey(self.watch, self.now)

    def settle(self):
        self.look()
        self.wait(30)
        return self.look()

    def orders(self, **busy):
        return [
            one.session.name
            for one in orders(look(self.watch, self.now), self.watch, self.now, **busy)
        ]

    def work(self, session, process=lambda found, records: {"name": found.name, "state": "done"}):
        self.begun = []

        def noted(found, records):
            self.begun.append(found.name)
            return process(found, records)

        with opened_run(self.watch, session, clock=lambda: self.now) as run:
            return run.through(noted)

    def where(self, session="s1"):
        return {name: str(one) for name, one in self.look()[session].standings.items()}


def failing(error):
    def process(found, records):
        if found.name == "bad":
            raise error.within(tomogram=found.name)
        return {"name": found.name, "state": "done"}

    return process

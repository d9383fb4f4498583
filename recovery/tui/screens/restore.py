"""Restore: the run as it happens. A window onto the engine: closing it, or opening it late, changes nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable

from textual import work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widget import Widget

from recovery.errors import RekindleError
from recovery.events import RunFinished
from recovery.plan.vm import VmPlan
from recovery.tui.messages import EngineEvents, StreamLost
from recovery.tui.pace import Pace
from recovery.tui.remote import remote_line
from recovery.tui.run_model import RunModel
from recovery.tui.run_text import (
    disk_figures,
    disk_labels,
    graph_lines,
    log_text,
    now_text,
    steps_text,
    whole_text,
)
from recovery.tui.screens.base import ConsoleScreen
from recovery.tui.screens.failed import FailedScreen
from recovery.tui.screens.result import ResultScreen
from recovery.tui.widgets.controls import Action
from recovery.tui.widgets.panes import Bar, Lines, Notice, Pane
from recovery.tui.work import in_thread, unexpected
from recovery.units import format_duration

#: Seconds between two redraws at least (``Pace``), and before listening again after the engine was lost.
REDRAW_SECONDS = 0.25
RELISTEN_SECONDS = 2.0
#: Of the console before this one (``Session.crash`` is told whole on Task).
RESTARTED = "The console ended by a bug and was started again; the restore was not touched."
#: Cells at the left of bars and graph (``console.tcss``).
LABEL = 22


class RestoreScreen(ConsoleScreen):
    """Steps, progress of the whole and of each disk, the newest lines of the log."""

    NAME = "Restore"
    HELP = (
        "The engine restores; this screen only shows it. You may leave the console\n"
        "or lose the connection: the restore goes on, and a new console shows it.\n\n"
        "Now        what is done at this moment; trouble with the server stands here.\n"
        "Rate       over the whole run so far; the highest column is 'most'.\n"
        "All data   restored of all bytes; transferred over the network; written\n"
        "           to disk; skipped because it was right already. At 100 % a host is\n"
        "           still made to start here: that is done when the result comes.\n"
        "Retries    requests that were repeated; a few do not matter.\n\n"
        "Stop       ends it after a question. A later restore onto the same disks\n"
        "           continues: what is right already is not fetched again."
    )
    HINTS = "Tab move  Enter select  F1 help  F2 shell  F8 remote  F10 power"

    def __init__(self) -> None:
        super().__init__()
        self.model = RunModel()
        self._pace = Pace()
        self._gone = threading.Event()
        self._listening = 0
        self._dirty = True
        self._waited = 0
        self._besides: list[str] = []

    def body(self) -> ComposeResult:
        """Header, steps, bars, log."""
        # What this console started shows its plan at once; else the engine is asked first.
        plan = self.session.plan
        self.model = RunModel(plan=plan)
        first = f"{self.model.subject}: starting" if plan is not None else "Asking the engine ..."
        yield Lines(first, id="run", classes="heading")
        width = self.app.size.width - 2
        yield Lines(now_text(self.model, width, time.time()) if plan is not None else "", id="now")
        yield Notice(id="besides")
        yield Lines(steps_text(self.model, 8, width), id="steps")
        with Horizontal(classes="row gap hidden", id="whole-row"):
            yield Lines("All data", classes="disk-label")
            yield Bar(id="whole-bar")
            yield Lines("", id="whole-pace", classes="disk-figures")
        yield Lines("", id="whole-figures")
        yield Lines("", id="graph")
        yield Pane(id="disks")
        yield Lines("", id="log")

    def buttons(self) -> Iterable[Widget]:
        """Stop; what can be done after a failure stands on the screen that comes then."""
        return (Action(f"Stop the {self.model.noun}", id="stop"),)

    def on_mount(self) -> None:
        """Catch up with the run and follow it."""
        self.query_one("#stop").focus()
        self.set_interval(REDRAW_SECONDS, self.follow)
        self.attach()

    def on_screen_resume(self) -> None:
        """A dialog that was over it may have turned remote access on."""
        self.tell_besides()

    def on_unmount(self) -> None:
        """The listening thread stops by itself."""
        self._gone.set()

    @work(exclusive=True, group="besides")
    async def tell_besides(self) -> None:
        """What a person wants to know beside the run, where there is room."""
        with contextlib.suppress(RekindleError):
            access = await in_thread(self.session.engine.remote_access)
            told = [RESTARTED if self.session.crash else "", remote_line(access)]
            self._besides = [line for line in told if line]
            self._dirty = True

    # --- following the run ------------------------------------------------------------------------------------

    @work(exclusive=True, group="attach")
    async def attach(self) -> None:
        """Build the picture anew from the engine's state and all its events."""
        try:
            state = await in_thread(self.session.engine.state)
        except RekindleError as error:
            self.status(f"Trying again: {error.message}")  # in this order: the line may be cut
            self.set_timer(RELISTEN_SECONDS, self.attach)
            return
        if state.phase == "idle":
            self.status("")
            self.console_app.back_to_plan()  # the engine was restarted and knows of no run
            if isinstance(self.app.screen, ConsoleScreen):
                self.app.screen.came_by_itself()
            return
        self.status("")
        self.model = RunModel(plan=state.plan or state.vm_plan)
        repair = self.model.noun == "repair"
        if repair:
            self.query_one("#title-name", Lines).update("Rekindle · Repair")
            self.query_one("#title-step", Lines).update("")
            self.query_one("#stop", Action).label = "Stop the repair"
        for id in ("whole-row", "whole-figures", "graph", "disks"):
            self.query_one(f"#{id}").set_class(repair, "hidden")
        await self._make_disks()
        self._listening += 1
        threading.Thread(target=self._listen, args=(self._listening,), daemon=True, name="events").start()

    async def _make_disks(self) -> None:
        pane = self.query_one("#disks", Pane)
        await pane.remove_children()
        for index, (_, label) in enumerate(disk_labels(self.model.plan)):
            await pane.mount(
                Horizontal(
                    Lines(label, classes="disk-label"),
                    Bar(id=f"bar-{index}"),
                    Lines("", id=f"figures-{index}", classes="disk-figures"),
                    classes="row",
                )
            )

    def _listen(self, turn: int) -> None:
        """The thread: hand events over until the run ends or the screen is gone."""
        try:
            for event in self.session.engine.events(since=0):
                if self._gone.is_set() or turn != self._listening:
                    return
                self.post_message(EngineEvents([event]))
        except RekindleError as error:
            self.post_message(StreamLost(error.report()))
        except Exception as error:  # the console must stay alive whatever the engine's end of the socket does
            self.post_message(StreamLost(unexpected(error).report()))

    def on_engine_events(self, message: EngineEvents) -> None:
        """Take them in; the end is shown at once."""
        for event in message.events:
            self.model.apply(event)
            if isinstance(event, RunFinished):
                self.ended()
        self._dirty = True

    def on_stream_lost(self, message: StreamLost) -> None:
        """The engine does not answer: say so, and try again."""
        self.status(f"Trying again: {message.error.message}")
        self.set_timer(RELISTEN_SECONDS, self.attach)

    def ended(self) -> None:
        """On to the result, or say what went wrong and what can be done."""
        self.redraw()
        error = self.model.error
        if error is None:
            self.console_app.start_with(ResultScreen())
            return
        self.console_app.go(FailedScreen(self.model, self._again))

    def _again(self) -> None:
        """Another attempt was started."""
        self._dirty = True
        self.attach()

    # --- drawing ----------------------------------------------------------------------------------------------

    def follow(self) -> None:
        """Four times a second: draw, unless the processor is needed elsewhere."""
        if self._pace.due():
            self.redraw()

    def redraw(self) -> None:
        """Show the model; the clock in the header moves always."""
        self._pace.drawing()
        self.call_after_refresh(self._pace.drawn)
        model = self.model
        plan = model.plan
        now = time.time()
        end = model.finished.at if model.finished else now
        took = format_duration(end - model.started) if model.started else "0:00"
        if plan is not None:
            self.query_one("#run", Lines).update(f"{model.subject}: {model.phase}, {took}")
        width, height = self.size.width - 2, self.size.height
        if self._dirty or model.waited(now) != self._waited:
            self._waited = model.waited(now)
            self.query_one("#now", Lines).update(now_text(model, width, now))
        if not self._dirty:
            return
        self._dirty = False
        rows = 2 if height < 30 else 4
        self.query_one("#graph", Lines).update("\n".join(graph_lines(model, rows, width, LABEL)))
        # Everything but steps and log has its lines; the log keeps three.
        disks = disk_labels(plan)
        fixed = (13 if height < 36 else 17) + rows + min(6, len(disks))
        besides = self._besides[: max(0, height - fixed - 4)]
        self.query_one("#besides", Notice).update("\n".join(besides))
        self.query_one("#steps", Lines).update(steps_text(model, max(3, height - fixed - len(besides)), width))
        total = model.total()
        self.query_one("#whole-bar", Bar).fraction = total.done / total.total if total and total.total else None
        self.query_one("#whole-pace", Lines).update(disk_figures(total))
        self.query_one("#whole-figures", Lines).update(whole_text(model))
        for index, (disk, _) in enumerate(disks):
            progress = model.disks.get(disk)
            for bar in self.query(f"#bar-{index}").results(Bar):
                bar.fraction = progress.done / progress.total if progress and progress.total else None
            for figures in self.query(f"#figures-{index}").results(Lines):
                figures.update(disk_figures(progress))
        log = self.query_one("#log", Lines)
        log.update(log_text(model, max(2, log.size.height), log.size.width))

    # --- keys -------------------------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Not during a run; afterwards to the plan."""
        if self.model.finished is None:
            self.status("A restore is running. Stop it first, or leave the console with F10: the restore goes on.")
        else:
            self.console_app.back_to_plan()

    @work(exclusive=True, group="ask")
    async def press_stop(self) -> None:
        """Ask, then stop; an end that came first has its own screen."""
        if self.model.finished is not None:
            return
        files = isinstance(self.model.plan, VmPlan)
        answer = await self.choose(
            f"Stop the {self.model.noun}?",
            "Nothing is left behind: the files have no names before all of them are complete.\n"
            "A later restore of the VM begins anew."
            if files
            else "The target disks stay incomplete and will not boot.\n"
            "A later restore onto the same disks continues where this one stopped.",
            [("on", "Go on"), ("stop", "Stop it")],
            kind="-error",
        )
        if answer == "stop" and self.model.finished is None:
            await self.ask("Stopping", self.session.engine.cancel)

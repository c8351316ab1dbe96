"""Collect the effects of a batch's events in its commit, by response and part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltaloom import limits
from deltaloom.reasons import reason_class
from handlers.core.assembly import StoredClosing
from handlers.core.effects import (
    Announced,
    Closing,
    ContextValues,
    Copy,
    Ending,
    Fallback,
    Fragment,
    Learned,
    Loss,
    ModelChange,
    Note,
)
from service.ports.commit import PartChange, ResponseChange

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from deltaloom.reasons import ReasonClass
    from handlers.core.effects import Effect, Origin
    from handlers.core.identity import PartKey, StreamKey
    from service.pipeline.columns import Column
    from service.pipeline.crowding import Crowding
    from service.pipeline.event_counts import EventCounts
    from service.pipeline.event_router import Source
    from service.ports.commit import Commit


class EffectCollector:
    """Collects the changes that a batch makes to responses and their parts.

    A value that is too long, such as an item id or a reason, is left out and counted. The response's context
    gets its name, and later outputs list it in `context_truncated`.

    Args:
        commit: the commit that the changes are added to.
        kinds: the enabled kinds of texts. Copies and closings of other kinds are dropped.
        counts: the counts of the batch.
        crowding: receives the events of parts that a response has beyond the limit in this batch alone.
            Storage finds those that exceed the limit together with stored parts.
    """

    def __init__(
        self, commit: Commit, kinds: Container[str], counts: EventCounts, crowding: Crowding
    ) -> None:
        self._commit = commit
        self._kinds = kinds
        self._counts = counts
        self._crowding = crowding

    def add_column(self, source: Source, event_type: str, part: PartKey, column: Column) -> None:
        """Add a column of deltas to `part`, with its item ids and producer context.

        If `part` is new to the batch and its response has the maximum of parts in the batch, the deltas are
        counted as left out instead.
        """
        response = self._commit.responses.get(part.stream_key)
        if response is None:
            response = self._commit.responses[part.stream_key] = ResponseChange()
        context, entries = source.producer.context, column.entries
        positions = None if column.positions is None else column.all_positions()
        response.add_context(context, self._commit.entry(entries[0]))
        if context.truncated:
            self._counts.count_truncated(context.truncated, entries)
        change, item_id = response.parts.get(part), column.item_id
        if change is None and len(response.parts) >= self._crowding.max_parts:
            self._crowding.leave_out_of_parts(part.stream_key, entries, positions)
            return
        has_one_id = item_id and len(item_id) <= limits.ID and len(column.item_id_changes) == 1
        if change is None and has_one_id:  # nearly always
            response.parts[part] = PartChange.of(
                entries, positions, column.numbers, column.delta_strings, item_id
            )
            return
        if change is None:
            change = response.parts[part] = PartChange()
        if has_one_id:
            change.record_item_id(item_id, entries[0], positions[0] if positions else 0)
        else:
            self._record_item_ids(response, change, event_type, column)
        change.add(entries, positions, column.numbers, column.delta_strings)

    def _record_item_ids(
        self, response: ResponseChange, change: PartChange, event_type: str, column: Column
    ) -> None:
        """Record the item ids of a column that does not have exactly one usable id.

        Events without an id change nothing. Empty ids are counted as left-out fields, too long ones as
        truncated values.
        """
        entries, positions = column.entries, column.all_positions()
        ends = [n for n, _ in column.item_id_changes[1:]]
        # Each run of events with one item id: `entries[n:end]`.
        for (n, item_id), end in zip(column.item_id_changes, [*ends, len(entries)], strict=True):
            if item_id == "":
                self._counts.count_left_out(event_type, "item_id", entries[n:end])
            else:
                self._record_item_id(
                    response, change, item_id, entries[n:end], positions[n] if positions else 0
                )

    def add_all(self, effects: Sequence[Effect], origin: Origin, index: int, event_type: str) -> None:
        """Add the effects of one event; `index` is that of its entry in the batch.

        Closings of kinds that are not enabled are dropped. An event is counted by its type if nothing else of
        it is kept: a redacted closing that is dropped, a loss without a response, an announcement of texts of
        other kinds only.
        """
        for effect in effects:
            if isinstance(effect, Fragment):
                self._add_fragment(effect, origin, index)
            elif isinstance(effect, Closing):
                if effect.part.kind in self._kinds:
                    self._close(effect, origin, index)
                elif effect.redacted:  # the count is the only trace of the event
                    self._counts.count_type(event_type, None, [index])
            elif isinstance(effect, Loss):
                self._lose(effect, origin, index, event_type)
            else:
                response = self._response(effect.stream_key, origin)
                response.effect_entries.add(index)
                self._change(response, effect, origin, index, event_type)

    def _add_fragment(self, fragment: Fragment, origin: Origin, index: int) -> None:
        change = self._part(fragment.part, fragment.item_id, origin, index)
        if change is not None:
            position = origin.arrival.position
            positions = [position] if position else None
            change.add([index], positions, [fragment.sequence_number], [fragment.delta])

    def _close(self, closing: Closing, origin: Origin, index: int) -> None:
        change = self._part(closing.part, closing.item_id, origin, index)
        if change is None:
            return
        response = self._commit.responses[closing.part.stream_key]
        response.effect_entries.add(index)
        note = Note(closing.checksum, closing.source, closing.redacted)
        if note != Note():
            response.notes[origin.arrival] = note
        stored = StoredClosing(origin.arrival, closing.rank, closing.text)
        change.close(stored, has_checksum=closing.checksum is not None)

    def _lose(self, loss: Loss, origin: Origin, index: int, event_type: str) -> None:
        """Count the events that a producer dropped, by entry, and add a note to the response.

        Only the first loss of a response that the batch handles gets a note. A loss without a response gets
        none; its event is counted by type.
        """
        lost = self._commit.lost_events
        lost[index] = lost.get(index, 0) + loss.dropped
        if loss.stream_key is None:  # the count is the only trace of the event
            self._counts.count_type(event_type, None, [index])
            return
        response = self._response(loss.stream_key, origin)
        response.effect_entries.add(index)
        if not response.lost:
            response.notes[origin.arrival] = Note(loss=True)
            response.lost = True

    def _change(
        self,
        response: ResponseChange,
        effect: Ending | Learned | Announced | Fallback,
        origin: Origin,
        index: int,
        event_type: str,
    ) -> None:
        """Add an effect on a response as a whole.

        An announcement without texts of enabled kinds adds nothing: its event is counted by type.
        """
        if isinstance(effect, Ending):
            response.endings[origin.arrival] = self._ending(response, effect, origin, index)
        elif isinstance(effect, Learned):
            self._learn(response, effect, index)
        elif isinstance(effect, Announced):
            copies = self._copies(response, effect, origin, index)
            if copies:
                response.notes[origin.arrival] = Note(announced=copies)
            else:  # the count is the only trace of the event
                self._counts.count_type(event_type, None, [index])
        else:
            self._add_fallback(response, effect, origin, index)

    def _add_fallback(self, response: ResponseChange, effect: Fallback, origin: Origin, index: int) -> None:
        """Add a note of a change of the model. Only the earliest event of a response in the batch has one.

        If that event is handled after a later one, the note of the later one is removed.
        """
        before = response.fallback_at
        if before is not None:
            if before < origin.arrival:
                return
            del response.notes[before]
        response.fallback_at = origin.arrival
        change = effect.change
        fitting = ModelChange(
            self._fitting(response, "from_model", change.from_model, limits.NAME, [index]),
            self._fitting(response, "to_model", change.to_model, limits.NAME, [index]),
            self._fitting(response, "trigger", change.trigger, limits.REASON, [index]),
        )
        response.notes[origin.arrival] = Note(fallback=fitting)

    def _copies(
        self, response: ResponseChange, effect: Ending | Announced, origin: Origin, index: int
    ) -> tuple[Copy, ...]:
        """Return the copies of enabled kinds; an item id that is too long becomes None.

        If there are more copies than a response may have parts, return the first ones, and count the event as
        left out. That may also add a dead letter (see `Crowding`).
        """
        most = self._crowding.max_parts
        copies = [copy for copy in effect.copies if copy.kind in self._kinds]
        if len(copies) > most:
            self._crowding.leave_out_of_parts(effect.stream_key, [index], [origin.arrival.position])
        return tuple(
            copy._replace(item_id=self._fitting(response, "item_id", copy.item_id, limits.ID, [index]))
            for copy in copies[:most]
        )

    def _ending(self, response: ResponseChange, ending: Ending, origin: Origin, index: int) -> Ending:
        """Return an ending with copies of enabled kinds only; values that are too long become None.

        Only the class of its reason has a substitute (see `_class_of`).
        """
        category, explanation = ending.provider_category, ending.provider_explanation
        return ending._replace(
            copies=self._copies(response, ending, origin, index),
            reason=self._fitting(response, "reason", ending.reason, limits.REASON, [index]),
            reason_class=self._class_of(response, ending, index),
            provider_category=self._fitting(response, "provider_category", category, limits.REASON, [index]),
            provider_explanation=self._fitting(
                response, "provider_explanation", explanation, limits.EXPLANATION, [index]
            ),
        )

    def _class_of(self, response: ResponseChange, ending: Ending, index: int) -> ReasonClass | None:
        """Return the class that an ending gives for its reason; None if it gives none.

        If that class is too long, return the one that `deltaloom.reasons` has for the reason. A class that
        the handler has left out is counted.
        """
        if ending.class_left_out:
            self._leave_out(response, "reason_class", [index])
        given = self._fitting(response, "reason_class", ending.reason_class, limits.REASON, [index])
        return reason_class(ending.reason or "") if given is None and ending.reason_class else given

    def _learn(self, response: ResponseChange, learned: Learned, index: int) -> None:
        """Add the context values that an event gives for its response, without those that are too long."""
        context = ContextValues(model=learned.model, safety_identifier=learned.safety_identifier)
        for name, value in context.pairs():
            if len(value) > limits.NAME:
                self._leave_out(response, name, [index], learned=True)
                context = (
                    context._replace(model=None)
                    if name == "model"
                    else context._replace(safety_identifier=None)
                )
        response.add_context(context, self._commit.entry(index), learned=True)

    def _response(self, key: StreamKey, origin: Origin) -> ResponseChange:
        response = self._commit.responses.get(key)
        if response is None:
            response = self._commit.responses[key] = ResponseChange()
        response.add_context(origin.context, origin.arrival.entry)
        return response

    def _part(self, part: PartKey, item_id: str | None, origin: Origin, index: int) -> PartChange | None:
        """Return the change of a part, new if necessary, with the item id recorded.

        If the part is new to the batch and its response has the maximum of parts in the batch, count the
        event as left out and return None.
        """
        response = self._response(part.stream_key, origin)
        change = response.parts.get(part)
        if change is None:
            if len(response.parts) >= self._crowding.max_parts:
                self._crowding.leave_out_of_parts(part.stream_key, [index], [origin.arrival.position])
                return None
            change = response.parts[part] = PartChange()
        self._record_item_id(response, change, item_id, [index], origin.arrival.position)
        return change

    def _record_item_id(
        self,
        response: ResponseChange,
        change: PartChange,
        item_id: str | None,
        entries: Sequence[int],
        position: int,
    ) -> None:
        """Record the item id of events in these entries, and leave out one that is too long.

        None changes nothing. If an id is left out, `item_id` is added to the response's `context_truncated`,
        and the events are counted. `position` is that of the first event in its entry.
        """
        fitting = self._fitting(response, "item_id", item_id, limits.ID, entries)
        change.record_item_id(fitting, entries[0], position)

    def _fitting(
        self, response: ResponseChange, name: str, value: str | None, most: int, entries: Sequence[int]
    ) -> str | None:
        """Return a value of at most `most` characters; leave out and count a longer one, and return None."""
        if value is None or len(value) <= most:
            return value
        self._leave_out(response, name, entries)
        return None

    def _leave_out(
        self, response: ResponseChange, name: str, entries: Sequence[int], *, learned: bool = False
    ) -> None:
        """Record and count a value that was left out of one event in each entry because it is too long.

        The response's context gets the name as truncated, as of the first entry. `learned` is True for a
        context value that the events give, instead of the producer.
        """
        context = ContextValues(truncated=(name,))
        response.add_context(context, self._commit.entry(entries[0]), learned=learned)
        self._counts.count_truncated([name], entries)

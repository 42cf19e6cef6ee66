"""OpenTelemetry traces: from a caller's request to the engine's answer, by the W3C's `traceparent`.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set, and then :func:`span` costs next to nothing. The
OpenTelemetry SDK's own variables (OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and so on) hold.

A trace begins where a request comes in, or where a worker takes a chunk that nobody's request is
known for; everything else is a part of what is under way, or no span. What others wrote or sent
never becomes an attribute: names, ids, counts and statuses only.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import selftaught
from selftaught.settings import get_settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool

HEADER: Final = "traceparent"
VARIABLE: Final = "TRACEPARENT"
"""In a child's environment, what the header is in a request."""
STOP_SECONDS = 2.0
"""So long a process that ends waits for its last spans to be taken."""
_ROOTS = frozenset({"server", "consumer"})
_OFF: Final[AbstractContextManager[Span]] = nullcontext(INVALID_SPAN)
_W3C = TraceContextTextMapPropagator()

_tracer: trace.Tracer | None = None


def setup(processor: SpanProcessor | None = None) -> None:
    """Once per process, by its main program: spans go to OTEL_EXPORTER_OTLP_ENDPOINT, if it is set.

    `processor`: to this one instead.
    """
    if processor is None and not get_settings().otlp_endpoint:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    told = {
        "service.namespace": "selftaught",
        "service.name": get_settings().role,
        "service.version": selftaught.__version__,
    }
    provider = TracerProvider(resource=Resource.create(told), shutdown_on_exit=False)
    provider.add_span_processor(processor or _exporting())
    atexit.register(_shut_down, provider.shutdown)
    use(provider.get_tracer("selftaught"))


def use(tracer: trace.Tracer | None) -> None:
    """Spans are this tracer's from now on; None: there are none."""
    global _tracer
    _tracer = tracer


def span(
    name: str,
    kind: Kind = "internal",
    parent: str | None = None,
    attributes: Mapping[str, Value] | None = None,
) -> AbstractContextManager[Span]:
    """A span around a block, and what it runs.

    `parent`: a `traceparent` from elsewhere; of a server and a consumer it is the only possible
    parent, and without a good one they begin a trace. Others without it are children of the span
    that is current, if there is one. An exception marks the span with its type.
    """
    if _tracer is None:
        return _OFF
    context = None
    if parent is not None or kind in _ROOTS:
        context = _W3C.extract({HEADER: parent} if parent else {}, Context())
    if kind not in _ROOTS and not trace.get_current_span(context).get_span_context().is_valid:
        return _OFF
    return _running(_tracer, name, kind, context, attributes)


@contextmanager
def _running(
    tracer: trace.Tracer,
    name: str,
    kind: Kind,
    context: Context | None,
    attributes: Mapping[str, Value] | None,
) -> Iterator[Span]:
    started = tracer.start_span(name, context, SpanKind[kind.upper()], attributes)
    # Not by OpenTelemetry: it would export the message and the traceback, with texts of people's.
    with trace.use_span(
        started, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        try:
            yield started
        except BaseException as error:
            started.set_attribute("error.type", type(error).__name__)
            started.set_status(StatusCode.ERROR)
            raise


def traceparent() -> str | None:
    """The current span, as the W3C writes it; None without one."""
    if _tracer is None:
        return None
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags & 1:02x}"


def headers() -> dict[str, str]:
    """What a request to another process, or a message, carries; empty without a current span."""
    found = traceparent()
    return {} if found is None else {HEADER: found}


def environment() -> dict[str, str]:
    """What a child process is given."""
    found = traceparent()
    return {} if found is None else {VARIABLE: found}


def ids() -> tuple[str, str] | None:
    """Trace and span, for logs."""
    found = traceparent()
    return None if found is None else (found[3:35], found[36:52])


def failed(one: Span) -> None:
    """Mark a span that ends without an exception, but not well."""
    one.set_status(StatusCode.ERROR)


def _exporting() -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter())


def _shut_down(shutdown: Callable[[], None]) -> None:
    """Send what waits; a collector that does not answer keeps nobody from ending."""
    ending = threading.Thread(target=shutdown, daemon=True)
    ending.start()
    ending.join(STOP_SECONDS)

"""The kinds of panels on the dashboards, and the parts that their queries share."""

from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

CALLS = 'grpc_service=~"attendant[.].+", instance=~"$instance"'
"""Calls to our own services; health checks and reflection are left out."""
SERVER = 'instance=~"$instance"'
MODEL = 'model=~"$model", instance=~"$instance"'
MODEL_LEGEND = "{{model}}/{{version}}"
SERVER_FAULTS = 'grpc_code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"'
"""Codes that count as failures of the server, the same as in the recording rules."""

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Panel = timeseries.Panel | stat.Panel


@dataclass(frozen=True)
class Query:
    """An expression and its legend, in which ``{{label}}`` stands for the value of a label."""

    expression: str
    legend: str
    has_exemplars: bool = False


def graph(
    title: str, text: str, unit: str, *queries: Query, soft_max: float | None = None
) -> timeseries.Panel:
    """Lines over time; ``text`` explains bad values, ``unit`` is the name of a Grafana unit.

    The axis reaches at least to ``soft_max``.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(text)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .fill_opacity(0)
        .show_points(common_models.VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .height(8)
        .span(8)
    )
    if soft_max is not None:
        panel = panel.axis_soft_max(soft_max)
    for i, query in enumerate(queries):
        panel = panel.with_target(_target(query, "ABCDEFGH"[i]))
    return panel


def number(
    title: str, text: str, unit: str, expression: str, *thresholds: tuple[float | None, str]
) -> stat.Panel:
    """The last value. Each threshold is a lower bound, None for the lowest, and its colour.

    If the series end, because the server is gone, their last value stays: where this would look
    well, let the expression end with ``or vector(0)``.
    """
    steps = [models.Threshold(value=value, color=color) for value, color in thresholds]
    return (
        stat.Panel()
        .title(title)
        .description(text)
        .datasource(DATASOURCE)
        .unit(unit)
        .thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
        .no_value("no calls")
        .graph_mode(common_models.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .with_target(_target(Query(expression, title), "A"))
        .height(4)
        .span(4)
    )


def percentiles(histogram: str, selector: str, *quantiles: float) -> list[Query]:
    """Queries for percentiles over all series of a histogram that ``selector`` selects."""
    rate = per_second(f"{histogram}_bucket", selector, "le")
    return [
        Query(f"histogram_quantile({quantile}, {rate})", f"p{100 * quantile:g}", i == 0)
        for i, quantile in enumerate(quantiles)
    ]


def percentile_by(
    histogram: str, selector: str, quantile: float, labels: str, legend: str = ""
) -> Query:
    """One percentile for each value of some labels."""
    rate = per_second(f"{histogram}_bucket", selector, f"le, {labels}")
    return Query(f"histogram_quantile({quantile}, {rate})", legend or f"{{{{{labels}}}}}")


def per_second(counter: str, selector: str, labels: str) -> str:
    """The expression for events per second for each value of some labels."""
    return f"sum by ({labels}) (rate({counter}{{{selector}}}[$__rate_interval]))"


def rate(counter: str, selector: str, labels: str, legend: str = "") -> Query:
    """Events per second for each value of some labels."""
    return Query(per_second(counter, selector, labels), legend or f"{{{{{labels}}}}}")


def mean(histogram: str, selector: str, labels: str, legend: str) -> Query:
    """The mean of a histogram's observations, for each value of some labels."""
    sums, counts = (
        per_second(f"{histogram}_{part}", selector, labels) for part in ("sum", "count")
    )
    return Query(f"{sums} / {counts}", legend)


def _target(query: Query, ref_id: str) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
    target = target.ref_id(ref_id).datasource(DATASOURCE)
    return target.range().exemplar(query.has_exemplars)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.LIST)
        .placement(common_models.LegendPlacement.BOTTOM)
        .show_legend(True)
    )

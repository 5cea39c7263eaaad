"""The parts that both dashboards share: variables, links and time ranges."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from deploy.dashboards.panels import DATASOURCE, Panel


def board(uid: str, title: str, text: str, rows: dict[str, Sequence[Panel]]) -> models.Dashboard:
    """A dashboard of rows of panels. ``rows`` maps the title of a row to its panels."""
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(text)
        .tags(["attendant"])
        .timezone("browser")
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(_link_to_the_others())
        .with_variable(_datasource())
        .with_variable(_labels("instance", "Instance", "attendant_build_info"))
        .with_variable(_labels("model", "Model", "attendant_model_info"))
    )
    for row, panels in rows.items():
        builder = builder.with_row(dashboard.Row(row))
        for panel in panels:
            builder = builder.with_panel(panel)
    return _numbered(builder.build())


def _numbered(built: models.Dashboard) -> models.Dashboard:
    for i, panel in enumerate(built.panels or [], start=1):
        panel.id_val = i
    return built


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _labels(label: str, title: str, metric: str) -> dashboard.QueryVariable:
    """A variable with the values of one label of our own metric.

    Queries list all values instead of matching any, so they never select series of other programs.
    """
    return (
        dashboard.QueryVariable(label)
        .label(title)
        .datasource(DATASOURCE)
        .query({"query": f"label_values({metric}, {label})", "refId": label})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _link_to_the_others() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("attendant")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["attendant"])
        .include_vars(True)
        .keep_time(True)
    )

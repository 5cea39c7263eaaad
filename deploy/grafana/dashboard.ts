// The type that the JSON of our dashboards must have: Grafana's own, with the enumerations as the strings that they
// are in JSON, and with the options that belong to each type of panel.
import type {
  GraphFieldConfig,
} from "@grafana/schema";
import type {
  Dashboard,
  FieldConfigSource,
  Panel,
  RowPanel,
} from "./node_modules/@grafana/schema/dist/types/raw/dashboard/x/types.gen";
import type { Options as StatOptions } from "./node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen";
import type { Options as TimeSeriesOptions } from "./node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen";

type Json<T> = unknown extends T
  ? T
  : T extends string
    ? `${T}`
    : T extends object
      ? { [K in keyof T]: Json<T[K]> }
      : T;

interface Query {
  datasource: { type: "prometheus"; uid: string };
  exemplar: boolean;
  expr: string;
  instant: boolean;
  legendFormat: string;
  range: boolean;
  refId: string;
}

type PanelOf<Type, Options, Custom> = Json<Omit<Panel, "type" | "options" | "targets" | "fieldConfig">> & {
  type: Type;
  options: Json<Options>;
  targets: Query[];
  fieldConfig: {
    defaults: Json<Omit<FieldConfigSource["defaults"], "custom">> & { custom?: Json<Custom> };
    overrides: [];
  };
};

export type OurDashboard = Json<Omit<Dashboard, "panels">> & {
  panels: (
    | (Json<Omit<RowPanel, "type">> & { type: "row" })
    | PanelOf<"stat", StatOptions, never>
    | PanelOf<"timeseries", TimeSeriesOptions, GraphFieldConfig>
  )[];
};

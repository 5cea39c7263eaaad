{{/* The name of all objects: that of the release. */}}
{{- define "attendant.name" -}}
{{- if contains "attendant" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-attendant" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "attendant.selector" -}}
app.kubernetes.io/name: attendant
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "attendant.labels" -}}
{{ include "attendant.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: attendant
{{- end }}

{{/* Settings that the chart decides, by their names. */}}
{{- define "attendant.settings" -}}
port: 50051
metrics_port: 9464
# Probes know no TLS, so they always have a port of their own.
health_port: 50052
log_format: json
lame_duck_seconds: {{ .Values.lameDuckSeconds }}
drain_seconds: {{ .Values.drainSeconds }}
{{- if .Values.tls.secret }}
tls_cert: /etc/attendant/tls/tls.crt
tls_key: /etc/attendant/tls/tls.key
{{- if .Values.tls.requireClientCertificates }}
tls_client_ca: /etc/attendant/tls/ca.crt
{{- end }}
{{- end }}
{{- if .Values.apiKeys.secret }}
api_keys: /etc/attendant/api-keys/api-keys.toml
{{- end }}
{{- if .Values.bundleKeys.configMap }}
bundle_keys: /etc/attendant/bundle-keys
{{- end }}
{{- if .Values.bundles.url }}
bundles: {{ .Values.bundles.url | quote }}
bundles_cache_dir: /var/cache/attendant
{{- end }}
{{- if .Values.http.enabled }}
http_port: 8080
{{- end }}
{{- if .Values.glossaries.configMap }}
glossaries: /etc/attendant/glossaries
{{- end }}
{{- end }}

{{/* Up at once, down one pod after the other and not before five quiet minutes. */}}
{{- define "attendant.scaling" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies:
    - {type: Percent, value: 100, periodSeconds: 30}
    - {type: Pods, value: 2, periodSeconds: 30}
scaleDown:
  stabilizationWindowSeconds: 300
  policies:
    - {type: Pods, value: 1, periodSeconds: 120}
{{- end }}

{{/* A value of a setting as text: whole numbers without an exponent, lists with commas. */}}
{{- define "attendant.value" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end }}

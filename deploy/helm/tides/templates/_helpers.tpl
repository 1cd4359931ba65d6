{{- define "tides.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "tides.labels" -}}
app.kubernetes.io/part-of: tides
app.kubernetes.io/name: tides
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tides.selector" -}}
app.kubernetes.io/name: tides
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "tides.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "tides.account" -}}
{{ .Values.serviceAccount.name | default (ternary (include "tides.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "tides.keysSecret" -}}{{ .Values.keys.existingSecret | default (printf "%s-keys" (include "tides.name" .)) }}{{- end }}

{{- /* Secret and key that hold each store's URL, whoever made them. */ -}}
{{- define "tides.databaseSecret" -}}
{{- if eq .Values.database.by "cloudnativepg" }}{{ include "tides.name" . }}-postgres-app{{ else }}{{ .Values.database.existingSecret | default (printf "%s-stores" (include "tides.name" .)) }}{{ end }}
{{- end }}
{{- define "tides.databaseKey" -}}{{ ternary "uri" "database_url" (eq .Values.database.by "cloudnativepg") }}{{- end }}
{{- define "tides.busSecret" -}}
{{- if eq .Values.bus.by "operator" }}{{ include "tides.name" . }}-rabbitmq-default-user{{ else }}{{ .Values.bus.existingSecret | default (printf "%s-stores" (include "tides.name" .)) }}{{ end }}
{{- end }}
{{- define "tides.busKey" -}}{{ ternary "connection_string" "bus_url" (eq .Values.bus.by "operator") }}{{- end }}

{{- /* What every pod has: security, volumes. Called with root and service. */ -}}
{{- define "tides.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- with .Values.podSecurity.runAsUser }}
runAsUser: {{ . }}
{{- end }}
{{- with .Values.podSecurity.fsGroup }}
fsGroup: {{ . }}
{{- end }}
{{- end }}

{{- define "tides.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "tides.env" -}}
{{- $signs := eq .service "identity" -}}
{{- range $name := concat (list "database_url" "bus_url" "installation_id" "sealing_keys" "verify_keys") (ternary (list "signing_key" "bootstrap_admin_token") list $signs) }}
- {name: TIDES_{{ upper $name }}_FILE, value: /run/secrets/tides/{{ $name }}}
{{- end }}
- {name: TIDES_HOST, value: 0.0.0.0}
- {name: TIDES_PORT, value: "8080"}
{{- range $name, $value := .root.Values.settings }}
- {name: TIDES_{{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- with .root.Values.tracing }}
{{- if .endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .ratio | quote }}}
{{- end }}
{{- end }}
{{- with .root.Values.boinc }}
{{- if .url }}
- {name: TIDES_BOINC_URL, value: {{ .url | quote }}}
{{- end }}
{{- if .signingKey }}
- {name: TIDES_BOINC_SIGNING_KEY, value: {{ .signingKey | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "tides.mounts" -}}
- {name: secrets, mountPath: /run/secrets/tides, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "tides.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
- name: secrets
  projected:
    defaultMode: 0444
    sources:
      - secret:
          name: {{ include "tides.databaseSecret" .root }}
          items: [{key: {{ include "tides.databaseKey" .root }}, path: database_url}]
      - secret:
          name: {{ include "tides.busSecret" .root }}
          items: [{key: {{ include "tides.busKey" .root }}, path: bus_url}]
      - secret:
          name: {{ include "tides.keysSecret" .root }}
          items:
            {{- range concat (list "installation_id" "sealing_keys" "verify_keys") (ternary (list "signing_key" "bootstrap_admin_token") list (eq .service "identity")) }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
{{- end }}

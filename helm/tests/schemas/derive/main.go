// Prints the JSON schema of a kind of the Prometheus operator, made from the Go types of its API.
// An argument says which: ServiceMonitor or PrometheusRule.
package main

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
)

type object = map[string]any

func main() {
	kinds := map[string]any{
		"ServiceMonitor": monitoring.ServiceMonitor{},
		"PrometheusRule": monitoring.PrometheusRule{},
	}
	definitions := object{}
	schema := of(reflect.TypeOf(kinds[os.Args[1]]), definitions)
	schema["definitions"] = definitions
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	if err := out.Encode(schema); err != nil {
		panic(err)
	}
}

// A type as encoding/json writes it: unknown fields are refused, and a field without omitempty is required.
func of(t reflect.Type, definitions object) object {
	switch name := t.String(); name {
	case "intstr.IntOrString":
		return object{"type": []string{"integer", "string"}}
	case "v1.Time", "v1.FieldsV1", "resource.Quantity", "v1.Duration":
		return object{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return of(t.Elem(), definitions)
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Slice:
		return object{"type": "array", "items": of(t.Elem(), definitions)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": of(t.Elem(), definitions)}
	case reflect.Struct:
		name := strings.NewReplacer("/", ".", "[", ".", "]", "").Replace(t.PkgPath() + "." + t.Name())
		if _, known := definitions[name]; !known {
			definitions[name] = object{}
			definitions[name] = fields(t, definitions)
		}
		return object{"$ref": "#/definitions/" + name}
	case reflect.Interface:
		return object{}
	default:
		return object{"type": "number"}
	}
}

func fields(t reflect.Type, definitions object) object {
	properties, required := object{}, []string{}
	var add func(reflect.Type)
	add = func(t reflect.Type) {
		for at := range t.NumField() {
			field := t.Field(at)
			name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case name == "-" || !field.IsExported():
			case name == "" && field.Anonymous:
				add(field.Type)
			case name != "":
				properties[name] = of(field.Type, definitions)
				if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
					required = append(required, name)
				}
			}
		}
	}
	add(t)
	schema := object{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

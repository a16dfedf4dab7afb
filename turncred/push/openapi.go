package push

import _ "embed" // openapi.yaml

// OpenAPI is the description of the credential interface (OpenAPI 3.1, YAML).
//
//go:embed openapi.yaml
var OpenAPI []byte

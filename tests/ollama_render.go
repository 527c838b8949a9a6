// Renders templates as Ollama does: collate and Execute of template/template.go, from their description.
// stdin: [{"template": ..., "messages": [{"role", "content", "thinking"}], "think": null|bool}], stdout: [text].
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/template"
)

type message struct {
	Role     string `json:"role"`
	Content  string `json:"content"`
	Thinking string `json:"thinking"`
}

type request struct {
	Template string    `json:"template"`
	Messages []message `json:"messages"`
	Think    *bool     `json:"think"`
}

func collate(given []message) (string, []*message) {
	var system []string
	var joined []*message
	for at := range given {
		one := given[at]
		if one.Role == "system" {
			system = append(system, one.Content)
		}
		if len(joined) > 0 && joined[len(joined)-1].Role == one.Role && one.Role != "tool" {
			last := joined[len(joined)-1]
			if last.Content != "" {
				last.Content += "\n\n"
			}
			last.Content += one.Content
		} else {
			joined = append(joined, &one)
		}
	}
	return strings.Join(system, "\n\n"), joined
}

func main() {
	var requests []request
	if err := json.NewDecoder(os.Stdin).Decode(&requests); err != nil {
		panic(err)
	}
	texts := []string{}
	for _, asked := range requests {
		parsed, err := template.New("").Option("missingkey=zero").Parse(asked.Template)
		if err != nil {
			panic(err)
		}
		system, messages := collate(asked.Messages)
		var out bytes.Buffer
		err = parsed.Execute(&out, map[string]any{
			"System":     system,
			"Messages":   messages,
			"Tools":      nil,
			"Response":   "",
			"Think":      asked.Think != nil && *asked.Think,
			"IsThinkSet": asked.Think != nil,
		})
		if err != nil {
			texts = append(texts, fmt.Sprintf("error: %v", err))
		} else {
			texts = append(texts, out.String())
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(texts); err != nil {
		panic(err)
	}
}

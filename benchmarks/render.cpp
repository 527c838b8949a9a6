// Renders chat templates with llama.cpp's own template engine, the one behind `llama-cli --jinja` and `llama-server`.
// stdin: a JSON array of {"template", "variables"}; stdout: a JSON array of {"text"} or {"error"}.

#include <cstdlib>
#include <iostream>
#include <iterator>
#include <string>

#include "jinja/lexer.h"
#include "jinja/parser.h"
#include "jinja/runtime.h"
#include "json.h"

// The JSON wrapper names ggml's abort; the rest of ggml is not needed here.
extern "C" [[noreturn]] void ggml_abort(const char * file, int line, const char *, ...) {
    std::cerr << file << ":" << line << ": aborted" << std::endl;
    std::abort();
}

int main() {
    const std::string input((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
    common_json answers = common_json::array();
    const common_json jobs = common_json::parse(input);
    for (const auto & [index, job] : jobs.items()) {
        common_json answer = common_json::object();
        try {
            const std::string source = job.at("template").get<std::string>();
            jinja::lexer lexer;
            const jinja::lexer_result tokens = lexer.tokenize(source);
            jinja::program program = jinja::parse_from_tokens(tokens);
            jinja::context context(source);
            jinja::global_from_json(context, job.at("variables"), false);
            jinja::runtime runtime(context);
            const jinja::value result = runtime.execute(program);
            answer["text"] = jinja::runtime::gather_string_parts(result)->as_string().str();
        } catch (const std::exception & error) {
            answer["error"] = std::string(error.what());
        }
        answers.push_back(answer);
    }
    std::cout << answers.dump() << std::endl;
}

// The agent: one loaded GGUF on a device, driven over standard input and output.
//
// Commands are lines in, answers are lines of JSON out; docs/lab.md has the protocol. Only
// llama.cpp's C API and POSIX are used. Times are taken here, never by whoever asks. The program
// leaves when its input ends, in the middle of an answer too, and after ten minutes without a
// command, so that nothing stays behind on a device whose cable was pulled.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>
#include <sstream>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "llama.h"
#include "machine.hpp"
#include "model.hpp"
#include "protocol.hpp"

// llama.cpp computes attention in an array of bytes that `new` aligns to 16. Where it begins within a
// line of the cache is then a matter of what was allocated before, and with 64-byte vectors a prompt
// took up to an eighth longer where it is not the line's beginning (docs/measurements/lab.md). Here it
// always is.
constexpr size_t kCacheLine = 64;

void * operator new[](size_t size) {
    void * memory = nullptr;
    if (posix_memalign(&memory, kCacheLine, size) != 0) throw std::bad_alloc();
    return memory;
}
void operator delete[](void * memory) noexcept { std::free(memory); }
void operator delete[](void * memory, size_t) noexcept { std::free(memory); }

namespace agent {
namespace {

constexpr int kProtocol = 2;
constexpr int kMostThreads = 4096;
constexpr int kLongestMs = 60 * 1000;

std::vector<llama_token> ids_of(std::istringstream & words) {
    std::vector<llama_token> ids;
    for (llama_token id; words >> id;) ids.push_back(id);
    return ids;
}

std::string rest_of(std::istringstream & words) {
    std::string rest;
    std::getline(words >> std::ws, rest);
    return rest;
}

std::string joined(const std::vector<llama_token> & ids) {
    std::string out;
    for (const llama_token id : ids) out += (out.empty() ? "" : ",") + std::to_string(id);
    return out;
}

int number(std::istringstream & words, int least, int most) {
    int value = 0;
    if (!(words >> value) || value < least || value > most) throw Refusal("usage", "a number is missing or out of range");
    return value;
}

void obey(const std::string & name, std::istringstream & words, Input & input, Model & model, Kernels & kernels) {
    if (name == "hello") {
        say("{\"protocol\":" + std::to_string(kProtocol) + ",\"engine\":" + quoted(llama_print_system_info()) + ",\"mask\":" + mask() + "}");
    } else if (name == "mask") {
        pin(words);
        say("{\"mask\":" + mask() + "}");
    } else if (name == "mark") {
        say("{\"mark\":" + mark(clock_ns()) + "}");
    } else if (name == "memory") {
        say("{\"peak\":" + kilobytes("/proc/self/status", "VmHWM:") + ",\"resident\":" + kilobytes("/proc/self/status", "VmRSS:") +
            ",\"proportional\":" + kilobytes("/proc/self/smaps_rollup", "Pss:") +
            ",\"available\":" + kilobytes("/proc/meminfo", "MemAvailable:") + "}");
    } else if (name == "forget") {
        say("{\"cached\":" + forget(rest_of(words)) + "}");
    } else if (name == "meter") {
        const std::string source = meter.open(rest_of(words));
        say("{\"source\":" + (source.empty() ? "null" : quoted(source)) + "}");
    } else if (name == "read") {
        const int bytes = number(words, 1 << 16, 1 << 30), threads = number(words, 1, kMostThreads);
        say(read_memory(size_t(bytes), threads, number(words, 0, kLongestMs) / 1e3));
    } else if (name == "weights") {
        std::string type;
        words >> type;
        const int bytes = number(words, 1, 1 << 30), columns = number(words, 1, 1 << 16);
        say("{\"bytes\":" + std::to_string(kernels.lay(Kernels::type_of(type), size_t(bytes), columns, number(words, 1, 1 << 16))) + "}");
    } else if (name == "product") {
        const int tokens = number(words, 1, kBatch), threads = number(words, 1, kMostThreads);
        say(kernels.run(tokens, threads, number(words, 0, kLongestMs) / 1e3));
    } else if (name == "open") {
        const int context = number(words, 1, 1 << 28);
        std::string kv;
        words >> kv;
        const int threads = number(words, 1, kMostThreads), batch_threads = number(words, 1, kMostThreads);
        const int64_t began = clock_ns();
        model.load(context, kv, threads, batch_threads, rest_of(words));
        const double seconds = double(clock_ns() - began) / 1e9;
        say("{\"load_s\":" + std::to_string(seconds) + "," + model.facts() + "}");
    } else if (name == "threads") {
        const int threads = number(words, 1, kMostThreads);
        model.use_threads(threads, number(words, 1, kMostThreads));
        say("{\"threads\":" + std::to_string(threads) + "}");
    } else if (name == "encode") {
        say("{\"ids\":[" + joined(model.encode(input.bytes(size_t(number(words, 0, int(kMostText)))))) + "]}");
    } else if (name == "decode") {
        const std::vector<llama_token> ids = ids_of(words);
        model.check(ids);
        const std::string text = model.decode(ids);
        say("{\"bytes\":" + std::to_string(text.size()) + "}"); // half a character may end it: no JSON
        write_all(text.data(), text.size());
    } else if (name == "generate") {
        const int most = number(words, 0, 1 << 28), stop = number(words, 0, 1);
        model.generate(ids_of(words), most, stop == 1);
    } else if (name == "logits") {
        model.logits(ids_of(words));
    } else if (name == "close") {
        model.free();
        kernels.free();
        say("{\"closed\":true}");
    } else {
        throw Refusal("usage", "no such command");
    }
}

} // namespace
} // namespace agent

// An argument is the seconds without a command after which it leaves.
int main(int count, char ** arguments) {
    using namespace agent;
    llama_log_set(listen, nullptr);
    llama_backend_init();
    watch_input();
    const int idle_s = count > 1 ? atoi(arguments[1]) : 0;
    Input input(idle_s > 0 ? idle_s * 1000 : kIdleMs);
    Model model;
    Kernels kernels;
    for (std::string line; input.line(line);) {
        std::istringstream words(line);
        std::string name;
        words >> name;
        try {
            obey(name, words, input, model, kernels);
        } catch (const Refusal & refusal) {
            say("{\"error\":" + quoted(refusal.what()) + ",\"kind\":" + quoted(refusal.kind) + "}");
        } catch (const std::exception & error) {
            say("{\"error\":" + quoted(error.what()) + ",\"kind\":\"room\"}");
        }
    }
    _exit(0); // without destructors: engines have been seen to crash there after all work was done
}

// The agent: one loaded GGUF on a device, driven over standard input and output.
//
// Commands are lines in, answers are lines of JSON out; docs/lab.md has the protocol. Only
// llama.cpp's C API and POSIX are used. Times are taken here, never by whoever asks. The program
// leaves when its input ends, in the middle of an answer too, and after ten minutes without a
// command, so that nothing stays behind on a device whose cable was pulled.

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "llama.h"

namespace {

constexpr int kProtocol = 1;
constexpr int kIdleMs = 600 * 1000;
constexpr int kGraceMs = 2000;
constexpr size_t kMostText = 64u << 20;
constexpr int kBatch = 512;       // n_batch and n_ubatch: llama.cpp's own default micro batch
constexpr int kLogitsBlock = 128; // rows of one block of logits
constexpr int64_t kReportNs = 500 * 1000 * 1000;

// What is wrong with a command; `kind` tells the desk which exit code it is.
struct Refusal : std::runtime_error {
    std::string kind;
    Refusal(std::string kind_, const std::string & text) : std::runtime_error(text), kind(std::move(kind_)) {}
};

int64_t clock_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// --- Input and output -------------------------------------------------------------------------

void write_all(const char * data, size_t size) {
    while (size > 0) {
        const ssize_t done = write(STDOUT_FILENO, data, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) _exit(0); // nobody reads any more
        data += done;
        size -= size_t(done);
    }
}

void say(const std::string & json) { write_all((json + "\n").data(), json.size() + 1); }

// A text as a JSON string; what is no UTF-8 was replaced before.
std::string quoted(const std::string & text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if ((unsigned char) c < 0x20) {
            char code[8];
            snprintf(code, sizeof code, "\\u%04x", c);
            out += code;
        } else {
            out += c;
        }
    }
    return out + '"';
}

class Input {
  public:
    // The next line without its end; false at the end of the input, or after a long silence.
    bool line(std::string & out) {
        size_t end;
        while ((end = held_.find('\n')) == std::string::npos) {
            if (held_.size() > kMostText || !more()) return false;
        }
        out = held_.substr(0, end);
        held_.erase(0, end + 1);
        return true;
    }

    // So many bytes behind a line.
    std::string bytes(size_t count) {
        if (count > kMostText) throw Refusal("usage", "the text is too long");
        while (held_.size() < count) {
            if (!more()) _exit(0);
        }
        std::string out = held_.substr(0, count);
        held_.erase(0, count);
        return out;
    }

  private:
    std::string held_;

    bool more() {
        pollfd waiting{STDIN_FILENO, POLLIN, 0};
        if (poll(&waiting, 1, kIdleMs) <= 0) return false;
        char piece[65536];
        const ssize_t count = read(STDIN_FILENO, piece, sizeof piece);
        if (count <= 0) return false;
        held_.append(piece, size_t(count));
        return true;
    }
};

// Leave soon after the input has ended, whatever is being computed. The thread sleeps until then.
void watch_input() {
#ifdef POLLRDHUP
    std::thread([] {
        pollfd waiting{STDIN_FILENO, POLLRDHUP, 0};
        while (poll(&waiting, 1, -1) < 0 && errno == EINTR) {}
        std::this_thread::sleep_for(std::chrono::milliseconds(kGraceMs));
        _exit(0);
    }).detach();
#endif
}

// --- The machine ------------------------------------------------------------------------------

std::string first_line(const std::string & path) {
    std::ifstream file(path);
    std::string text;
    std::getline(file, text);
    return text;
}

std::vector<std::string> names_in(const std::string & folder, const std::string & prefix) {
    std::vector<std::string> names;
    if (DIR * open = opendir(folder.c_str())) {
        while (const dirent * entry = readdir(open)) {
            if (std::string(entry->d_name).rfind(prefix, 0) == 0) names.push_back(entry->d_name);
        }
        closedir(open);
    }
    std::sort(names.begin(), names.end());
    return names;
}

// Kilobytes of a row in a file of /proc, as bytes; null where it is not told.
std::string kilobytes(const std::string & path, const std::string & key) {
    std::ifstream file(path);
    for (std::string row; std::getline(file, row);) {
        if (row.rfind(key, 0) == 0) return std::to_string(strtoll(row.c_str() + key.size(), nullptr, 10) * 1024);
    }
    return "null";
}

// Mean clock of the cores, in MHz.
std::string megahertz() {
    double total = 0;
    int count = 0;
    const std::string top = "/sys/devices/system/cpu/";
    for (const auto & name : names_in(top, "cpu")) {
        const double kilohertz = strtod(first_line(top + name + "/cpufreq/scaling_cur_freq").c_str(), nullptr);
        if (kilohertz > 0) {
            total += kilohertz / 1000;
            count++;
        }
    }
    return count ? std::to_string(total / count) : "null";
}

// Thermal zones of the processor by their type; phones have sixty zones, and some are slow to read.
std::string zones() {
    static const std::vector<std::pair<std::string, std::string>> known = [] {
        std::vector<std::pair<std::string, std::string>> rows;
        const std::string top = "/sys/class/thermal/";
        for (const auto & name : names_in(top, "thermal_zone")) {
            const std::string type = first_line(top + name + "/type");
            for (const char * word : {"cpu", "soc", "x86_pkg", "acpitz"}) {
                if (type.find(word) != std::string::npos) {
                    rows.emplace_back(type, top + name + "/temp");
                    break;
                }
            }
        }
        return rows;
    }();
    std::string out;
    for (const auto & [type, path] : known) {
        const std::string text = first_line(path);
        if (!text.empty()) {
            out += (out.empty() ? "[" : ",[") + quoted(type) + "," + std::to_string(strtoll(text.c_str(), nullptr, 10)) + "]";
        }
    }
    return "[" + out + "]";
}

// A point in time: our clock, the first line of /proc/stat, our own processor seconds, sensors.
std::string mark(int64_t at) {
    rusage own{};
    getrusage(RUSAGE_SELF, &own);
    const double seconds = double(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
    std::ostringstream out;
    out << "{\"at\":" << at << ",\"stat\":" << quoted(first_line("/proc/stat")) << ",\"own_s\":" << seconds
        << ",\"hertz\":" << sysconf(_SC_CLK_TCK) << ",\"mhz\":" << megahertz() << ",\"zones\":" << zones() << "}";
    return out.str();
}

// The processors that this process may use, as the kernel has them: a mask has been ignored before.
std::string mask() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return "null";
    std::string out;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &set)) out += (out.empty() ? "" : ",") + std::to_string(cpu);
    }
    return "[" + out + "]";
}

// Move all threads of this process; what the system refuses shows when the mask is read back.
void pin(std::istringstream & words) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int cpu; words >> cpu;) {
        if (cpu < 0 || cpu >= CPU_SETSIZE) throw Refusal("usage", "no such processor");
        CPU_SET(cpu, &set);
    }
    for (const auto & name : names_in("/proc/self/task", "")) {
        if (name[0] != '.') sched_setaffinity(pid_t(atoi(name.c_str())), sizeof set, &set);
    }
    sched_setaffinity(0, sizeof set, &set);
}

// Ask the kernel to drop a file's pages; the share that it holds nevertheless, null where nobody tells.
std::string forget(const std::string & path) {
    const int file = open(path.c_str(), O_RDONLY);
    if (file < 0) throw Refusal("input", "cannot read " + path);
    struct stat facts{};
    std::string out = "null";
    fsync(file);
    if (fstat(file, &facts) == 0 && facts.st_size > 0 && posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0) {
        const size_t size = size_t(facts.st_size), page = size_t(sysconf(_SC_PAGESIZE));
        void * address = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
        if (address != MAP_FAILED) {
            std::vector<unsigned char> flags((size + page - 1) / page);
            if (mincore(address, size, flags.data()) == 0) {
                size_t held = 0;
                for (const unsigned char flag : flags) held += flag & 1;
                out = std::to_string(double(held) / double(flags.size()));
            }
            munmap(address, size);
        }
    }
    close(file);
    return out;
}

// --- The model --------------------------------------------------------------------------------

std::string complaint; // the first since the model was asked for: what follows only repeats it

void listen(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR && complaint.empty() && text && *text) complaint = std::string(text).substr(0, 400);
}

class Model {
  public:
    ~Model() { free(); }

    void free() {
        if (context_) llama_free(context_);
        if (model_) llama_model_free(model_);
        context_ = nullptr;
        model_ = nullptr;
    }

    void load(int context, const std::string & kv, int threads, int batch_threads, const std::string & path) {
        free();
        complaint.clear();
        llama_model_params model = llama_model_default_params();
        model.n_gpu_layers = 0;
        // Mapping the file would keep its pages resident beside the copies that kernels repack.
        model.load_mode = LLAMA_LOAD_MODE_NONE;
        model_ = llama_model_load_from_file(path.c_str(), model);
        if (!model_) throw Refusal("input", "llama.cpp cannot load the model: " + complaint);
        vocab_ = llama_model_get_vocab(model_);
        llama_context_params params = llama_context_default_params();
        params.n_ctx = uint32_t(context);
        params.n_batch = params.n_ubatch = uint32_t(std::min(kBatch, context));
        params.n_seq_max = 1;
        params.type_k = params.type_v = cache_type(kv);
        params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
        params.no_perf = true;
        params.n_threads = threads;
        params.n_threads_batch = batch_threads;
        context_ = llama_init_from_model(model_, params);
        if (!context_) throw Refusal("room", "llama.cpp cannot open the context: " + complaint);
        room_ = context;
    }

    void use_threads(int threads, int batch_threads) { llama_set_n_threads(opened(), threads, batch_threads); }

    // Facts of the loaded model that do not change.
    std::string facts() {
        opened();
        std::string ends;
        const int count = llama_vocab_n_tokens(vocab_);
        for (int id = 0; id < count; id++) {
            if (llama_vocab_is_eog(vocab_, id)) ends += (ends.empty() ? "" : ",") + std::to_string(id);
        }
        const char * chat = llama_model_chat_template(model_, nullptr);
        return "\"vocabulary\":" + std::to_string(count) + ",\"ends\":[" + ends + "],\"template\":" + (chat ? quoted(chat) : "null");
    }

    std::vector<llama_token> encode(const std::string & text) {
        opened();
        std::vector<llama_token> ids(text.size() + 1);
        const int count = llama_tokenize(vocab_, text.data(), int(text.size()), ids.data(), int(ids.size()), false, true);
        ids.resize(size_t(std::max(0, count)));
        return ids;
    }

    std::string decode(const std::vector<llama_token> & ids) {
        opened();
        std::string text(64 + 16 * ids.size(), '\0');
        int size = llama_detokenize(vocab_, ids.data(), int(ids.size()), text.data(), int(text.size()), false, true);
        if (size < 0) {
            text.resize(size_t(-size));
            size = llama_detokenize(vocab_, ids.data(), int(ids.size()), text.data(), int(text.size()), false, true);
        }
        text.resize(size_t(std::max(0, size)));
        return text;
    }

    // Greedy from a cold cache. Tokens go out in groups, twice a second at most, each group with a
    // mark; the time that telling them takes stands in no stamp.
    void generate(const std::vector<llama_token> & prompt, int most, bool stop) {
        if (prompt.empty() || most < 0 || int64_t(prompt.size()) + most > room_) {
            throw Refusal("usage", "prompt and answer do not fit the context");
        }
        check(prompt);
        llama_memory_clear(llama_get_memory(opened()), false);
        int64_t paused = 0, told = clock_ns();
        const int64_t began = told;
        std::string tokens, stamps;
        feed(prompt);
        for (int count = 0; count < most; count++) {
            llama_token token = best();
            if (stop && llama_vocab_is_eog(vocab_, token)) break;
            const int64_t now = clock_ns();
            tokens += (tokens.empty() ? "" : ",") + std::to_string(token);
            stamps += (stamps.empty() ? "" : ",") + std::to_string(now - paused);
            if (now - told >= kReportNs) {
                say("{\"tokens\":[" + tokens + "],\"at\":[" + stamps + "],\"mark\":" + mark(now - paused) + "}");
                tokens.clear();
                stamps.clear();
                told = clock_ns();
                paused += told - now;
            }
            if (count + 1 < most) feed({token});
        }
        const int64_t now = clock_ns();
        say("{\"tokens\":[" + tokens + "],\"at\":[" + stamps + "],\"mark\":" + mark(now - paused) + ",\"began\":" + std::to_string(began) + "}");
    }

    // What the model says behind every token: blocks of float32 as the machine has them, each behind
    // a line that tells its rows.
    void logits(const std::vector<llama_token> & ids) {
        if (ids.empty() || int64_t(ids.size()) > room_) throw Refusal("usage", "the tokens do not fit the context");
        check(ids);
        llama_memory_clear(llama_get_memory(opened()), false);
        const int width = llama_vocab_n_tokens(vocab_), step = std::min({kLogitsBlock, kBatch, room_});
        llama_batch batch = llama_batch_init(step, 0, 1);
        for (size_t start = 0; start < ids.size(); start += size_t(step)) {
            const int rows = int(std::min(size_t(step), ids.size() - start));
            batch.n_tokens = rows;
            for (int row = 0; row < rows; row++) {
                batch.token[row] = ids[start + size_t(row)];
                batch.pos[row] = llama_pos(start) + row;
                batch.n_seq_id[row] = 1;
                batch.seq_id[row][0] = 0;
                batch.logits[row] = 1;
            }
            const int code = llama_decode(context_, batch);
            if (code) {
                llama_batch_free(batch);
                throw Refusal("room", "llama.cpp could not compute a batch (code " + std::to_string(code) + ")");
            }
            say("{\"rows\":" + std::to_string(rows) + ",\"width\":" + std::to_string(width) + "}");
            write_all(reinterpret_cast<const char *>(llama_get_logits(context_)), size_t(rows) * size_t(width) * sizeof(float));
        }
        llama_batch_free(batch);
        say("{\"end\":true}");
    }

    void check(const std::vector<llama_token> & ids) {
        opened();
        const int count = llama_vocab_n_tokens(vocab_);
        for (const llama_token id : ids) {
            if (id < 0 || id >= count) throw Refusal("usage", "no such token: " + std::to_string(id));
        }
    }

  private:
    llama_model * model_ = nullptr;
    llama_context * context_ = nullptr;
    const llama_vocab * vocab_ = nullptr;
    int room_ = 0;

    llama_context * opened() {
        if (!context_) throw Refusal("usage", "no model is open");
        return context_;
    }

    static ggml_type cache_type(const std::string & name) {
        for (int type = 0; type < GGML_TYPE_COUNT; type++) {
            const char * known = ggml_type_name(ggml_type(type));
            if (known && name == known) return ggml_type(type);
        }
        throw Refusal("usage", "no such cache type: " + name);
    }

    void feed(std::vector<llama_token> tokens) {
        for (size_t start = 0; start < tokens.size(); start += kBatch) {
            const int count = int(std::min(size_t(kBatch), tokens.size() - start));
            const int code = llama_decode(context_, llama_batch_get_one(tokens.data() + start, count));
            if (code) throw Refusal("room", "llama.cpp could not compute a batch (code " + std::to_string(code) + ")");
        }
    }

    llama_token best() {
        const float * scores = llama_get_logits_ith(context_, -1);
        return llama_token(std::max_element(scores, scores + llama_vocab_n_tokens(vocab_)) - scores);
    }
};

// --- Commands ---------------------------------------------------------------------------------

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

void obey(const std::string & name, std::istringstream & words, Input & input, Model & model) {
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
    } else if (name == "open") {
        const int context = number(words, 1, 1 << 28);
        std::string kv;
        words >> kv;
        const int threads = number(words, 1, 4096), batch_threads = number(words, 1, 4096);
        const int64_t began = clock_ns();
        model.load(context, kv, threads, batch_threads, rest_of(words));
        const double seconds = double(clock_ns() - began) / 1e9;
        say("{\"load_s\":" + std::to_string(seconds) + "," + model.facts() + "}");
    } else if (name == "threads") {
        const int threads = number(words, 1, 4096);
        model.use_threads(threads, number(words, 1, 4096));
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
        say("{\"closed\":true}");
    } else {
        throw Refusal("usage", "no such command");
    }
}

} // namespace

int main() {
    llama_log_set(listen, nullptr);
    llama_backend_init();
    watch_input();
    Input input;
    Model model;
    for (std::string line; input.line(line);) {
        std::istringstream words(line);
        std::string name;
        words >> name;
        try {
            obey(name, words, input, model);
        } catch (const Refusal & refusal) {
            say("{\"error\":" + quoted(refusal.what()) + ",\"kind\":" + quoted(refusal.kind) + "}");
        } catch (const std::exception & error) {
            say("{\"error\":" + quoted(error.what()) + ",\"kind\":\"room\"}");
        }
    }
    _exit(0); // without destructors: engines have been seen to crash there after all work was done
}

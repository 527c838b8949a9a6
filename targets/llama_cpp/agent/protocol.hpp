// The protocol of the agent: lines in, lines of JSON out, and what is wrong with a command.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace agent {

constexpr int kIdleMs = 600 * 1000;
constexpr int kGraceMs = 2000;
constexpr size_t kMostText = 64u << 20;

// What is wrong with a command; `kind` tells the desk which exit code it is.
struct Refusal : std::runtime_error {
    std::string kind;
    Refusal(std::string kind_, const std::string & text) : std::runtime_error(text), kind(std::move(kind_)) {}
};

inline int64_t clock_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline void write_all(const char * data, size_t size) {
    while (size > 0) {
        const ssize_t done = write(STDOUT_FILENO, data, size);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) _exit(0); // nobody reads any more
        data += done;
        size -= size_t(done);
    }
}

inline void say(const std::string & json) { write_all((json + "\n").data(), json.size() + 1); }

// A text as a JSON string; what is not UTF-8 was replaced before.
inline std::string quoted(const std::string & text) {
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
    explicit Input(int idle_ms) : idle_ms_(idle_ms) {}

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

    // So many bytes after a line.
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
    int idle_ms_;
    std::string held_;

    bool more() {
        pollfd waiting{STDIN_FILENO, POLLIN, 0};
        if (poll(&waiting, 1, idle_ms_) <= 0) return false;
        char piece[65536];
        const ssize_t count = read(STDIN_FILENO, piece, sizeof piece);
        if (count <= 0) return false;
        held_.append(piece, size_t(count));
        return true;
    }
};

// Leave soon after the input has ended, whatever is being computed. The thread sleeps until then.
inline void watch_input() {
#ifdef POLLRDHUP
    std::thread([] {
        pollfd waiting{STDIN_FILENO, POLLRDHUP, 0};
        while (poll(&waiting, 1, -1) < 0 && errno == EINTR) {}
        std::this_thread::sleep_for(std::chrono::milliseconds(kGraceMs));
        _exit(0);
    }).detach();
#endif
}

} // namespace agent

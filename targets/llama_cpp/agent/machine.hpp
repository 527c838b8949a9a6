// What the machine reports of itself: clocks, heat, memory, the processors of this process.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "energy.hpp"
#include "files.hpp"
#include "protocol.hpp"

namespace agent {

// Kilobytes of a row in a file of /proc, as bytes; null where it is not there.
inline std::string kilobytes(const std::string & path, const std::string & key) {
    std::ifstream file(path);
    for (std::string row; std::getline(file, row);) {
        if (row.rfind(key, 0) == 0) return std::to_string(strtoll(row.c_str() + key.size(), nullptr, 10) * 1024);
    }
    return "null";
}

// Mean clock of the cores, in MHz.
inline std::string megahertz() {
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
inline std::string zones() {
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

// A point in time: our clock, the first line of /proc/stat, our own processor seconds, sensors, joules.
inline std::string mark(int64_t at) {
    rusage own{};
    getrusage(RUSAGE_SELF, &own);
    const double seconds = double(own.ru_utime.tv_sec + own.ru_stime.tv_sec) + (own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6;
    std::ostringstream out;
    out << "{\"at\":" << at << ",\"stat\":" << quoted(first_line("/proc/stat")) << ",\"own_s\":" << seconds
        << ",\"hertz\":" << sysconf(_SC_CLK_TCK) << ",\"mhz\":" << megahertz() << ",\"zones\":" << zones()
        << ",\"joules\":" << meter.joules() << "}";
    return out.str();
}

// The processors that this process may use, as the kernel has them: a mask has been ignored before.
inline std::string mask() {
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
inline void pin(std::istringstream & words) {
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

// Ask the kernel to drop a file's pages; the share that it holds nevertheless, null where it cannot be known.
inline std::string forget(const std::string & path) {
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

} // namespace agent

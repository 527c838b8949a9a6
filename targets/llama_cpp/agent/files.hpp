// The small files in which a kernel tells of itself.
#pragma once

#include <dirent.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

namespace agent {

inline std::string first_line(const std::string & path) {
    std::ifstream file(path);
    std::string text;
    std::getline(file, text);
    return text;
}

inline std::vector<std::string> names_in(const std::string & folder, const std::string & prefix) {
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

// A whole number that is all of a file's first line; false for anything else.
inline bool whole_number(const std::string & path, long long & value) {
    const std::string text = first_line(path);
    char * end = nullptr;
    value = strtoll(text.c_str(), &end, 10);
    return !text.empty() && end == text.c_str() + text.size();
}

} // namespace agent

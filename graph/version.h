// The version of Gradweave.
#ifndef GRADWEAVE_GRAPH_VERSION_H_
#define GRADWEAVE_GRAPH_VERSION_H_

namespace gradweave {

// The text of the file VERSION: "0.1.0" is major, minor and patch.
extern const char kVersion[];

// Returns kVersion: gw::Version().
inline const char* Version() { return kVersion; }

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_VERSION_H_
